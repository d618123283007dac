package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/gworker/gworker/internal/terminal"
)

// count is a number and its noun: "1 job", "2 jobs".
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok && !strings.HasSuffix(stem, "e") {
		return fmt.Sprintf("%s %sies", grouped(n), stem)
	}
	return fmt.Sprintf("%s %ss", grouped(n), noun)
}

// grouped writes a number with separators between its thousands.
func grouped(n int64) string {
	digits := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return sign + digits
}

// age writes a duration with its two largest units.
func age(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute-50*time.Millisecond:
		return d.Round(100 * time.Millisecond).String()
	}
	d = d.Round(time.Second)
	for _, unit := range []struct {
		size, next   time.Duration
		name, second string
	}{{24 * time.Hour, time.Hour, "d", "h"}, {time.Hour, time.Minute, "h", "min"}, {time.Minute, time.Second, "min", "s"}} {
		if d < unit.size {
			continue
		}
		text := fmt.Sprintf("%d %s", d/unit.size, unit.name)
		if rest := d % unit.size / unit.next; rest > 0 {
			text += fmt.Sprintf(" %d %s", rest, unit.second)
		}
		return text
	}
	return d.String()
}

// size writes a number of bytes.
func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%d MB", bytes>>20)
	}
	return fmt.Sprintf("%d kB", bytes>>10)
}

// listed joins the first few of things, and says how many are left out.
func listed(things []string, separator string) string {
	if len(things) <= namedThings {
		return strings.Join(things, separator)
	}
	return fmt.Sprintf("%s%sand %d more", strings.Join(things[:namedThings], separator), separator, len(things)-namedThings)
}

// first are the first few of things.
func first[T any](things []T) []T { return things[:min(len(things), namedThings)] }

// literal is a text as an SQL literal on one line, which can safely be copied from a
// terminal. A backslash has no meaning in a plain literal while standard_conforming_strings
// is on, which is the default.
func literal(text string) string {
	quoted := strings.ReplaceAll(text, "'", "''")
	if terminal.Line(quoted) == quoted {
		return "'" + quoted + "'"
	}
	// The escapes of package terminal mean the same here.
	return "E'" + terminal.Line(strings.ReplaceAll(quoted, `\`, `\\`)) + "'"
}

// textArray is a list as an SQL array.
func textArray(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = literal(t)
	}
	return "array[" + strings.Join(quoted, ", ") + "]"
}

// plural is a number with the words that go with it.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// comment is a text that can follow "--".
func comment(text string) string { return terminal.Line(strings.Join(strings.Fields(text), " ")) }

func plural64(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + many
}

func join(texts []string) string { return strings.Join(texts, ", ") }
