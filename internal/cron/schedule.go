package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Schedule is the five time fields of an item, as sets of numbers. Schedules
// are equal if their texts are.
type Schedule struct {
	text                                   [5]string
	minutes, hours, days, months, weekdays uint64
	// rhythm says that the minutes have a "*": the item runs every so many minutes.
	rhythm bool
}

// field is one of the five, with the range of its numbers.
type field struct {
	name     string
	min, max int
}

var fields = [5]field{
	{"minute", 0, 59}, {"hour", 0, 23}, {"day of month", 1, 31}, {"month", 1, 12}, {"day of week", 0, 6},
}

// all is the set of all numbers of a field.
func (f field) all() uint64 { return 1<<(f.max+1) - 1<<f.min }

// ParseSchedule reads five fields with spaces between them.
func ParseSchedule(text string) (Schedule, error) {
	words := strings.FieldsFunc(text, isSpace)
	if len(words) != len(fields) {
		return Schedule{}, fmt.Errorf("has %d fields: five are needed, minute hour day-of-month month day-of-week", len(words))
	}
	s, problems := parseFields([5]string(words))
	if len(problems) > 0 {
		return Schedule{}, errors.New(problems[0].Field + ": " + problems[0].Problem)
	}
	return s, nil
}

// parseFields reads the fields; problems name theirs.
func parseFields(text [5]string) (s Schedule, problems []*Error) {
	var sets [5]uint64
	for i, f := range fields {
		set, err := f.parse(text[i])
		if err != nil {
			problems = append(problems, &Error{Field: f.name, Problem: err.Error()})
		}
		sets[i] = set
	}
	return Schedule{
		text: text, minutes: sets[0], hours: sets[1], days: sets[2], months: sets[3], weekdays: sets[4],
		rhythm: strings.Contains(text[0], "*") || sets[0] == fields[0].all(),
	}, problems
}

func (s *Schedule) String() string { return strings.Join(s.text[:], " ") }

// parse reads a list of numbers, ranges and "*", as a set of bits.
func (f field) parse(text string) (set uint64, err error) {
	for _, part := range strings.Split(text, ",") {
		first, last, step, err := f.parsePart(part)
		if err != nil {
			return 0, err
		}
		for n := first; n <= last; n += step {
			set |= 1 << n
		}
	}
	if f.name == "day of week" && set&(1<<7) != 0 {
		set = set&^(1<<7) | 1 // Sunday has two numbers
	}
	return set, nil
}

func (f field) parsePart(part string) (first, last, step int, err error) {
	if rest, ok := strings.CutPrefix(part, "*"); ok {
		step = 1
		if rest != "" {
			digits, ok := strings.CutPrefix(rest, "/")
			if !ok || !isNumber(digits) {
				return 0, 0, 0, f.unsupported(part)
			}
			// A step beyond the range, however large, leaves its lowest number.
			step = f.max + 1
			if n, err := strconv.Atoi(digits); err == nil {
				step = min(n, step)
			}
		}
		if step == 0 {
			return 0, 0, 0, fmt.Errorf("%q: the step must be at least 1", part)
		}
		return f.min, f.max, step, nil
	}
	from, to, isRange := strings.Cut(part, "-")
	if !isRange {
		to = from
	}
	if !isNumber(from) || !isNumber(to) {
		return 0, 0, 0, f.unsupported(part)
	}
	if first, err = f.number(from); err != nil {
		return 0, 0, 0, err
	}
	if last, err = f.number(to); err != nil {
		return 0, 0, 0, err
	}
	if isRange && last <= first {
		return 0, 0, 0, fmt.Errorf("%q is an empty range: the second number must be larger than the first", part)
	}
	return first, last, 1, nil
}

func (f field) number(digits string) (int, error) {
	largest := f.max
	if f.name == "day of week" {
		largest = 7
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < f.min || n > largest {
		return 0, fmt.Errorf("%s is out of range: it can be %d to %d", digits, f.min, largest)
	}
	return n, nil
}

func (f field) unsupported(part string) error {
	return fmt.Errorf("%q is neither a number, a range such as %d-%d, * nor */n", part, f.min, f.max)
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// hasDay reports whether a day of the calendar matches. If both day of month and day of
// week are restricted, a match of either suffices, as in every cron.
func (s *Schedule) hasDay(day, month, weekday int) bool {
	if s.months&(1<<month) == 0 {
		return false
	}
	byDay, byWeekday := s.days&(1<<day) != 0, s.weekdays&(1<<weekday) != 0
	if s.days == fields[2].all() || s.weekdays == fields[4].all() {
		return byDay && byWeekday
	}
	return byDay || byWeekday
}

// hasTime reports whether a time of day matches.
func (s *Schedule) hasTime(hour, minute int) bool {
	return s.hours&(1<<hour) != 0 && s.minutes&(1<<minute) != 0
}

// everyHour says that the schedule follows real time where clocks change.
func (s *Schedule) everyHour() bool { return bits.OnesCount64(s.hours) == 24 }
