package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// dayParts are the parts of a duration that Go has no unit for.
var dayParts = regexp.MustCompile(`^(\d+(?:\.\d+)?)([wd])`)

// parseDuration reads a duration of Go, such as 1h30m, that may begin with weeks and
// days of 24 hours: 1w, 2d12h.
func parseDuration(text string) (time.Duration, error) {
	rest, negative := strings.CutPrefix(text, "-")
	var hours float64
	for part := dayParts.FindStringSubmatch(rest); part != nil; part = dayParts.FindStringSubmatch(rest) {
		n, err := strconv.ParseFloat(part[1], 64)
		if err != nil {
			return 0, err
		}
		if part[2] == "w" {
			n *= 7
		}
		hours += 24 * n
		rest = rest[len(part[0]):]
	}
	if hours > float64(math.MaxInt64/time.Hour)/2 {
		return 0, fmt.Errorf("%q is too long", text)
	}
	d := time.Duration(hours * float64(time.Hour))
	if rest != "" || len(rest) == len(strings.TrimPrefix(text, "-")) {
		more, err := time.ParseDuration(rest)
		if err != nil {
			return 0, err
		}
		if more < 0 && hours > 0 {
			return 0, fmt.Errorf("%q has a sign in its middle", text)
		}
		d += more
	}
	if negative {
		d = -d
	}
	return d, nil
}

// duration is a flag's duration as parseDuration reads it.
type duration time.Duration

// newDuration binds a flag to a duration, which gets its default.
func newDuration(to *time.Duration, initial time.Duration) *duration {
	*to = initial
	return (*duration)(to)
}

func (d *duration) Set(text string) error {
	parsed, err := parseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no duration such as 90s, 2h or 1d", text)
	}
	*d = duration(parsed)
	return nil
}

func (d *duration) String() string { return time.Duration(*d).String() }

func (*duration) Type() string { return "duration" }
