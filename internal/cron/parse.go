package cron

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/json5"
)

// Error is what is wrong with one line of a crontab.
type Error struct {
	// Line counts from 1.
	Line int
	// Field names what is wrong: minute, hour, day of month, month, day of week,
	// task, options or one option's name, payload, line or CRON_TZ.
	Field   string
	Problem string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s: %s", e.Line, e.Field, e.Problem) }

// Errors is everything that is wrong with a crontab, by lines.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As each of them.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// setting is a line that sets a variable. No line of times looks like it.
var setting = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$`)

// Parse reads a crontab. It returns everything that is wrong, and the items of the lines
// that are not.
func Parse(text string) ([]Item, Errors) {
	var items []Item
	var found Errors
	var zone Zone
	lineOf := map[string]int{}
	for n, line := range strings.Split(text, "\n") {
		line, n = strings.TrimFunc(line, isSpace), n+1
		if line == "" || line[0] == '#' {
			continue
		}
		var problems []*Error
		if match := setting.FindStringSubmatch(line); match != nil {
			problems = setZone(&zone, match[1], match[2])
		} else {
			item := Item{Zone: zone, Line: n}
			problems = item.parse(line)
			if first, ok := lineOf[item.Identifier]; ok {
				problems = append(problems, &Error{Field: "id", Problem: fmt.Sprintf(
					"%q is the identifier of line %d, too: give one of them its own with ?id=", item.Identifier, first)})
			} else if item.Identifier != "" {
				lineOf[item.Identifier] = n
			}
			if len(problems) == 0 {
				items = append(items, item)
			}
		}
		for _, p := range problems {
			p.Line = n
			found = append(found, p)
		}
	}
	return items, found
}

// setZone reads a line CRON_TZ=zone, which applies to the lines after it.
func setZone(zone *Zone, name, value string) []*Error {
	if name != "CRON_TZ" {
		return []*Error{{Field: name, Problem: "cannot be set in a crontab: CRON_TZ is all that can"}}
	}
	if len(value) > 1 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		value = value[1 : len(value)-1]
	}
	parsed, err := ParseZone(value)
	if err != nil {
		return []*Error{{Field: name, Problem: err.Error()}}
	}
	*zone = parsed
	return nil
}

// isSpace is JavaScript's idea of white space. Unlike Go's it has U+FEFF and lacks
// U+0085.
func isSpace(r rune) bool {
	switch r {
	case '\t', '\v', '\f', '\ufeff', '\n':
		return true
	}
	return isLineEnd(r) || unicode.Is(unicode.Zs, r)
}

// isLineEnd reports whether r ends a line in JavaScript; the line feed is left out.
func isLineEnd(r rune) bool { return r == '\r' || r == '\u2028' || r == '\u2029' }

// word takes the first word off a text without leading space.
func word(text string) (first, rest string) {
	end := strings.IndexFunc(text, isSpace)
	if end < 0 {
		return text, ""
	}
	return text[:end], strings.TrimLeftFunc(text[end:], isSpace)
}

func (i *Item) parse(line string) (problems []*Error) {
	if !utf8.ValidString(line) {
		return []*Error{{Field: "line", Problem: "it is not valid UTF-8"}}
	}
	if line[0] == '@' {
		first, _ := word(line)
		return []*Error{{Field: "minute", Problem: fmt.Sprintf(
			"%s is not known here: give five fields, minute hour day-of-month month day-of-week", first)}}
	}
	var times [5]string
	rest := line
	for n, f := range fields {
		times[n], rest = word(rest)
		if times[n] == "" {
			return []*Error{{Field: f.name, Problem: "is missing: a line has five fields, minute hour day-of-month " +
				"month day-of-week, and a task"}}
		}
	}
	i.Schedule, problems = parseFields(times)
	return append(problems, i.parseCommand(rest)...)
}

// parseCommand reads the task, its options and its payload.
func (i *Item) parseCommand(text string) (problems []*Error) {
	command := text
	i.Task, text = word(text)
	i.Identifier = i.Task
	switch {
	case i.Task == "":
		problems = append(problems, &Error{Field: "task", Problem: "is missing after the five time fields"})
	case !taskName.MatchString(i.Task):
		problems = append(problems, &Error{Field: "task", Problem: fmt.Sprintf(
			"is %q: it begins with a letter or _, and has letters, digits, _, :, / and -", i.Task)})
	case len(i.Task) > maxTask:
		problems = append(problems, &Error{Field: "task", Problem: fmt.Sprintf(
			"has %d characters: the limit is %d", len(i.Task), maxTask)})
	}
	if strings.HasPrefix(text, "?") {
		var given string
		given, text = word(text)
		if given == "?" {
			problems = append(problems, &Error{Field: "options", Problem: "are missing after the question mark"})
		}
		problems = append(problems, i.setOptions(given[1:])...)
	}
	// Within a payload JSON5 allows them.
	if at := strings.IndexFunc(command[:len(command)-len(text)], isLineEnd); at >= 0 {
		r, _ := utf8.DecodeRuneInString(command[at:])
		problems = append(problems, &Error{Field: "line", Problem: fmt.Sprintf(
			"%U after the task ends the line on Node: write a space instead", r)})
	}
	if text == "" {
		return problems
	}
	payload, err := parsePayload(text)
	if err != nil {
		return append(problems, &Error{Field: "payload", Problem: err.Error()})
	}
	i.Payload = payload
	return problems
}

func parsePayload(text string) (json.RawMessage, error) {
	if text[0] != '{' {
		return nil, fmt.Errorf("%q stands where ?options or a payload such as {a: 1} can be", text)
	}
	payload, err := json5.ToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("is not JSON5: %w", err)
	}
	if !strings.HasSuffix(text, "}") {
		return nil, fmt.Errorf("something comes after its closing brace")
	}
	return payload, nil
}
