package contain

import (
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/gworker/gworker/gworkertype"
)

// PanicError is what a panic of the user's code becomes.
type PanicError = gworkertype.PanicError

// Recovered is the error of a panic with this value, for deferred functions that have just
// recovered from it.
func Recovered(value any) *PanicError { return newPanicError(value, string(debug.Stack())) }

func newPanicError(value any, stack string) *PanicError {
	e := &PanicError{Value: value, Stack: stack}
	if err, is := value.(error); is {
		f := &Failure{err: err}
		f.read()
		if e.Text, e.Opaque = f.text, !f.whole; e.Text != NoText {
			return e
		}
	}
	e.Text = TextOf(value)
	return e
}

// isRead reports whether an error is one that newPanicError has made, or as good.
func isRead(e *PanicError) bool { return e != nil && e.Text != "" && e.Text == Bounded(e.Text) }

// TextOf is the text of a panic's value; it is never empty.
func TextOf(value any) string {
	text, isText := value.(string)
	switch {
	case isText:
	case !printable(value):
		return fmt.Sprintf("a value of type %T, which is too big to print, or holds itself", value)
	default:
		e := call(func() { text = fmt.Sprintf("%v", value) })
		switch e.how {
		case panicked:
			text = fmt.Sprintf("a value of type %T, whose text cannot be read, as that panics as well", value)
		case exited:
			text = fmt.Sprintf("a value of type %T, whose text cannot be read, as that ends the goroutine", value)
		case returned:
		}
	}
	if isBlank(text) {
		return fmt.Sprintf("%q, of type %T", text, value)
	}
	return Bounded(text)
}

// printable reports whether fmt can print a value in a short time. fmt has no limit of its
// own, and a value that contains itself would overflow the stack, which ends the process.
func printable(value any) bool {
	switch value.(type) {
	case error, fmt.Stringer, fmt.Formatter, fmt.GoStringer:
		return true // they print themselves
	}
	v, left := reflect.ValueOf(value), mostPrinted
	if v.Kind() == reflect.Pointer { // fmt follows the first pointer and no others
		v = v.Elem()
	}
	return fits(v, &left)
}

// mostPrinted bounds how much of a value is printed, in values that it consists of.
const mostPrinted = 1000

func fits(v reflect.Value, left *int) bool {
	if *left--; *left < 0 {
		return false
	}
	switch v.Kind() {
	case reflect.Interface:
		return fits(v.Elem(), left)
	case reflect.Struct:
		for i := range v.NumField() {
			if !fits(v.Field(i), left) {
				return false
			}
		}
	case reflect.Array, reflect.Slice:
		if kind := v.Type().Elem().Kind(); kind <= reflect.Complex128 || kind == reflect.String {
			return v.Len() <= MaxText
		}
		for i := range v.Len() {
			if !fits(v.Index(i), left) {
				return false
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if !fits(entries.Key(), left) || !fits(entries.Value(), left) {
				return false
			}
		}
	default: // it holds no others
	}
	return true
}

func isBlank(text string) bool { return strings.TrimSpace(text) == "" }
