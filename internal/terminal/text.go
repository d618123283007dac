// Package terminal prints text that other people wrote - names, errors and payloads
// from a database, file names, the output of tasks - where a terminal may show it.
//
// What a terminal would act on, and what changes how a line reads, is shown escaped:
// control characters and with them escape sequences, line breaks inside of a value,
// characters that change the direction of writing or are invisible, and bytes that are
// not UTF-8. A backslash stays as it is, so the escaped form is for people; programs
// read JSON.
//
// There are two guards. Values pass Fprintf, Line or Block, which know where a value
// ends. Writer, around a whole stream, then escapes what did not, and leaves JSON
// equivalent to what it was.
package terminal

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line is text as one line.
func Line(text string) string { return escaped(text, "") }

// Block is text that may have several lines: line breaks stay, and tabs, which stack
// traces have, become spaces.
func Block(text string) string {
	return escaped(strings.ReplaceAll(text, "\t", "    "), "\n")
}

// escaped is text in which only the characters in stay are as they were.
func escaped(text, stay string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, acts) {
		return text
	}
	var b strings.Builder
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case !acts(r) || strings.ContainsRune(stay, r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// acts reports whether a terminal may do something else with a character than show
// it in its place. Joiners are part of emoji and of some scripts.
func acts(r rune) bool {
	switch {
	case ' ' <= r && r < 0x7f, r == '\u200c', r == '\u200d':
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
}

// Fprintf is fmt.Fprintf with each text among args as one line: strings, byte slices,
// errors, and what has a String method. The format and its line breaks stay. %q quotes
// as ever.
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	for i, arg := range args {
		args[i] = guarded(arg)
	}
	return fmt.Fprintf(w, format, args...)
}

func guarded(arg any) any {
	switch v := arg.(type) {
	case nil:
		return arg
	case error:
		return value{arg, v.Error()}
	case fmt.Stringer:
		return value{arg, v.String()}
	case []byte:
		return value{arg, string(v)}
	}
	switch v := reflect.ValueOf(arg); {
	case v.Kind() == reflect.String:
		return value{arg, v.String()}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		return value{arg, string(v.Bytes())}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		values := make([]value, v.Len())
		for i := range values {
			values[i] = value{v.Index(i).Interface(), v.Index(i).String()}
		}
		return values
	}
	return arg
}

// value is an argument that prints as one line.
type value struct {
	arg  any
	text string
}

// Format implements fmt.Formatter.
func (v value) Format(f fmt.State, verb rune) {
	format := fmt.FormatString(f, verb)
	switch verb {
	case 's', 'v':
		fmt.Fprintf(f, format, Line(v.text))
	case 'q':
		fmt.Fprintf(f, format, v.text)
	default:
		fmt.Fprintf(f, format, v.arg)
	}
}
