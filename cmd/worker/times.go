package main

import (
	"fmt"
	"time"
)

// span is a duration in a unit of its size.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// relative is a time relative to now.
func relative(at, now time.Time) string {
	switch d := at.Sub(now); {
	case at.IsZero():
		return "never" // PostgreSQL's infinity
	case d.Abs() < time.Second:
		return "now"
	case d > 0:
		return "in " + span(d)
	default:
		return span(d) + " ago"
	}
}

// absolute is a time in the local time zone, and relative to now.
func absolute(at, now time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s (%s)", at.Local().Format("2006-01-02 15:04:05 -0700"), relative(at, now))
}

// parsePast reads a time, or how long ago it was.
func parsePast(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := parseDuration(text); err == nil {
		return now.Add(-ago.Abs()), nil
	}
	at, ok := parseDate(text)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is %q: give a time such as 2027-01-01 or 2027-01-01T06:00:00Z, or how long ago, such as 24h or 7d", flag, text)
	}
	return at, nil
}

// parseDate reads a time. One without a zone is in the local zone, as times are printed; one
// without a time of day means midnight.
func parseDate(text string) (at time.Time, ok bool) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly,
	} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// parseTime reads a time, or a duration from now.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if after, err := parseDuration(text); err == nil {
		return now.Add(after), nil
	}
	at, ok := parseDate(text)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is %q: give a time such as 2027-01-01 or 2027-01-01T06:00:00Z, or a duration such as 10m or 1d", flag, text)
	}
	return at, nil
}
