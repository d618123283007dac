package cron

import (
	"errors"
	"fmt"
	"time"
)

// Zone is a time zone; the zero value is UTC.
type Zone struct {
	name     string
	location *time.Location
}

// ParseZone finds a time zone by its name in the IANA database; "" is UTC.
func ParseZone(name string) (Zone, error) {
	switch name {
	case "":
		return Zone{}, nil
	case "Local":
		return Zone{}, errors.New(`is "Local", which differs from machine to machine: give a name such as Europe/Paris`)
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return Zone{}, fmt.Errorf("is %q, which is no time zone that is known here: give a name such as Europe/Paris "+
			"(names come from the system's zone database, or from Go's package time/tzdata)", name)
	}
	return Zone{name: name, location: location}, nil
}

// Name is the name that the zone was found by, "" for UTC.
func (z Zone) Name() string { return z.name }

// Location returns the zone for use with time.Time.
func (z Zone) Location() *time.Location {
	if z.location == nil {
		return time.UTC
	}
	return z.location
}

// clock is what a clock in the zone shows at an instant, to the minute, as if it
// were a time in UTC.
func (z Zone) clock(at time.Time) time.Time {
	_, offset := at.In(z.Location()).Zone()
	return at.Add(time.Duration(offset) * time.Second).UTC().Truncate(time.Minute)
}

// longestChange is more than the clocks of any zone were ever moved at once.
const longestChange = 26 * time.Hour

// matches reports whether a schedule is due at an instant in the zone. The
// package comment has the rule for changes of the clock.
func (z Zone) matches(s *Schedule, at time.Time) bool {
	at = at.Truncate(time.Minute)
	clock := z.clock(at)
	shown := s.shows(clock)
	if z.location == nil || s.everyHour() {
		return shown
	}
	if shown {
		return s.rhythm || !z.repeated(at, clock)
	}
	skipped := z.clock(at.Add(-time.Minute)).Add(time.Minute)
	if clock.Sub(skipped) > longestChange {
		return false
	}
	for ; skipped.Before(clock); skipped = skipped.Add(time.Minute) {
		if s.shows(skipped) {
			return true
		}
	}
	return false
}

// shows reports whether a clock's reading matches.
func (s *Schedule) shows(clock time.Time) bool {
	hour, minute, _ := clock.Clock()
	if !s.hasTime(hour, minute) {
		return false
	}
	_, month, day := clock.Date()
	return s.hasDay(day, int(month), int(clock.Weekday()))
}

// repeated reports whether the zone's clocks have shown the same before.
func (z Zone) repeated(at, clock time.Time) bool {
	for period := at.In(z.Location()); ; {
		start, _ := period.ZoneBounds()
		if start.IsZero() || at.Sub(start) > longestChange {
			return false
		}
		period = start.Add(-time.Second) // in the period before
		_, offset := period.Zone()
		earlier := clock.Add(-time.Duration(offset) * time.Second)
		since, _ := period.ZoneBounds()
		if earlier.Before(start) && (since.IsZero() || !earlier.Before(since)) {
			return true
		}
	}
}

// searchYears is how far next looks: 29 February can be eight years away.
const searchYears = 9

// next returns the first minute after t at which the schedule is due, or the
// zero time.
func (z Zone) next(s *Schedule, t time.Time) time.Time {
	at := t.UTC().Truncate(time.Minute).Add(time.Minute)
	for limit := at.AddDate(searchYears, 0, 0); at.Before(limit); {
		end := at.Truncate(24 * time.Hour).Add(24 * time.Hour)
		if z.mayMatch(s, at, end) {
			for ; at.Before(end); at = at.Add(time.Minute) {
				if z.matches(s, at) {
					return at
				}
			}
		}
		at = end
	}
	return time.Time{}
}

// mayMatch is false only if no minute from begin to end matches: if the clock does not
// change in between and no day matches.
func (z Zone) mayMatch(s *Schedule, begin, end time.Time) bool {
	_, until := begin.Add(-time.Minute).In(z.Location()).ZoneBounds()
	if !until.IsZero() && !until.After(end) {
		return true
	}
	last := z.clock(end.Add(-time.Minute))
	for day := z.clock(begin).Truncate(24 * time.Hour); !day.After(last); day = day.AddDate(0, 0, 1) {
		if s.hasDay(day.Day(), int(day.Month()), int(day.Weekday())) {
			return true
		}
	}
	return false
}
