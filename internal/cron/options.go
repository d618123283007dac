package cron

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The schema's limits, in characters.
const (
	maxTask  = 128
	maxQueue = 128
	maxKey   = 512
)

var (
	taskName   = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9:/-]*$`)
	identifier = regexp.MustCompile(`^[_a-zA-Z][-_a-zA-Z0-9]*$`)
	queueName  = regexp.MustCompile(`^[-a-zA-Z0-9_:]+$`)
	phrase     = regexp.MustCompile(`^(?:[0-9]+[smhdw])+$`)
	phrasePart = regexp.MustCompile(`([0-9]+)([smhdw])`)
)

// option is one of the ?options of a line, and how it changes the item.
type option struct {
	name string
	set  func(i *Item, value string) error
}

var options = []option{
	{"id", (*Item).setIdentifier}, {"fill", (*Item).setFill}, {"max", (*Item).setMax}, {"queue", (*Item).setQueue},
	{"jobKey", (*Item).setKey}, {"jobKeyMode", (*Item).setKeyMode}, {"priority", (*Item).setPriority}, {"tz", (*Item).setZone},
}

// spellings are those of Rust's crontabs that differ.
var spellings = map[string]string{"job_key": "jobKey", "job_key_mode": "jobKeyMode"}

// setOptions reads options in the form of a query string.
func (i *Item) setOptions(text string) (problems []*Error) {
	seen := map[string]bool{}
	for _, pair := range strings.Split(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		if common, ok := spellings[name]; ok {
			name = common
		}
		place := slices.IndexFunc(options, func(o option) bool { return o.name == name })
		var err error
		switch {
		case place < 0:
			var names []string
			for _, o := range options {
				names = append(names, o.name)
			}
			problems = append(problems, &Error{Field: "options", Problem: fmt.Sprintf(
				"there is no option %q: there are %s", name, strings.Join(names, ", "))})
			continue
		case seen[name]:
			err = fmt.Errorf("is given more than once")
		case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
			err = fmt.Errorf("is not valid UTF-8, or holds a NUL character")
		default:
			err = options[place].set(i, value)
		}
		seen[name] = true
		if err != nil {
			problems = append(problems, &Error{Field: name, Problem: err.Error()})
		}
	}
	return problems
}

// unescape keeps a percent sign that begins no escape, as Node does.
func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	var plain strings.Builder
	for at := 0; at < len(text); at++ {
		if at+3 <= len(text) && text[at] == '%' {
			if char, err := url.QueryUnescape(text[at : at+3]); err == nil {
				plain.WriteString(char)
				at += 2
				continue
			}
		}
		if text[at] == '+' {
			plain.WriteByte(' ')
		} else {
			plain.WriteByte(text[at])
		}
	}
	return plain.String()
}

func (i *Item) setIdentifier(value string) error {
	if !identifier.MatchString(value) {
		return fmt.Errorf("is %q: it begins with a letter or _, and has letters, digits, _ and -", value)
	}
	i.Identifier = value
	return nil
}

var units = map[string]time.Duration{
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

func (i *Item) setFill(value string) error {
	if !phrase.MatchString(value) {
		return fmt.Errorf("is %q: give a time such as 4w3d2h1m30s", value)
	}
	i.Fill = 0
	for _, part := range phrasePart.FindAllStringSubmatch(value, -1) {
		unit := units[part[2]]
		n, err := strconv.ParseInt(part[1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-i.Fill)/unit) {
			return fmt.Errorf("is %q, which is too long", value)
		}
		i.Fill += time.Duration(n) * unit
	}
	return nil
}

func (i *Item) setMax(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || !isNumber(value) || n < 1 || n > math.MaxInt16 {
		return fmt.Errorf("is %q: it can be 1 to %d", value, math.MaxInt16)
	}
	i.MaxAttempts = n
	return nil
}

func (i *Item) setQueue(value string) error {
	if !queueName.MatchString(value) || len(value) > maxQueue {
		return fmt.Errorf("is %q: it has 1 to %d letters, digits, _, : and -", value, maxQueue)
	}
	i.Queue = value
	return nil
}

func (i *Item) setKey(value string) error {
	if n := utf8.RuneCountInString(value); n < 1 || n > maxKey {
		return fmt.Errorf("has %d characters: it can have 1 to %d", n, maxKey)
	}
	i.Key = value
	return nil
}

func (i *Item) setKeyMode(value string) error {
	if value != "replace" && value != "preserve_run_at" {
		return fmt.Errorf("is %q: it can be replace or preserve_run_at", value)
	}
	i.KeyMode = value
	return nil
}

func (i *Item) setPriority(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || !isNumber(strings.TrimPrefix(value, "-")) || n < math.MinInt16 || n > math.MaxInt16 {
		return fmt.Errorf("is %q: it can be %d to %d", value, math.MinInt16, math.MaxInt16)
	}
	i.Priority = n
	return nil
}

func (i *Item) setZone(value string) error {
	if value == "" {
		return fmt.Errorf("is empty: give a name such as Europe/Paris")
	}
	// A plus sign, as in Etc/GMT+5, means a space in a query string.
	zone, err := ParseZone(strings.ReplaceAll(value, " ", "+"))
	if err != nil {
		return err
	}
	i.Zone = zone
	return nil
}

// String is the item as a line of a crontab. It shows values, too, that only items built in
// Go can have, such as a task with a space; such a line cannot be parsed.
func (i *Item) String() string {
	var values []string
	add := func(name, value string) {
		if value != "" {
			escaped := strings.NewReplacer("%2F", "/", "%3A", ":").Replace(url.QueryEscape(value))
			values = append(values, name+"="+escaped)
		}
	}
	if i.Identifier != i.Task {
		add("id", i.Identifier)
	}
	add("fill", fillPhrase(i.Fill))
	if i.MaxAttempts != 0 {
		add("max", strconv.Itoa(i.MaxAttempts))
	}
	add("queue", i.Queue)
	add("jobKey", i.Key)
	add("jobKeyMode", i.KeyMode)
	if i.Priority != 0 {
		add("priority", strconv.Itoa(i.Priority))
	}
	add("tz", i.Zone.name)
	line := i.Schedule.String() + " " + i.Task
	if len(values) > 0 {
		line += " ?" + strings.Join(values, "&")
	}
	if i.Payload != nil {
		line += " " + oneLine(i.Payload)
	}
	return line
}

func oneLine(payload json.RawMessage) string {
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(string(payload))
}

func fillPhrase(d time.Duration) string {
	var text strings.Builder
	for _, unit := range []string{"w", "d", "h", "m", "s"} {
		if n := d / units[unit]; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, unit)
			d -= n * units[unit]
		}
	}
	return text.String()
}
