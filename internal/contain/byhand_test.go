package contain_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gworker/gworker/gworkertype"
	"github.com/gworker/gworker/internal/contain"
)

// A PanicError that a handler has made by hand has a text that can be stored, and is found
// in what was read of it.
func TestPanicErrorsMadeByHand(t *testing.T) {
	m := map[string]any{}
	m["self"] = m
	for name, made := range map[string]*gworkertype.PanicError{
		"a value": {Value: "boom"}, "an error": {Value: errors.New("boom")}, "no value": {}, "holds itself": {Value: m},
		"a text": {Text: "boom"}, "huge": {Text: strings.Repeat("x", 1<<20)}, "NUL": {Text: "a\x00b"}, "not UTF-8": {Text: "\xff"},
	} {
		read := contain.Read(made)
		if text := read.Error(); text != contain.Bounded(text) || !strings.HasPrefix(text, "panic: ") {
			t.Errorf("%s: %.100q", name, text)
		}
		if found := (*gworkertype.PanicError)(nil); !errors.As(read, &found) || found != made {
			t.Errorf("%s: it is not found", name)
		}
	}
}
