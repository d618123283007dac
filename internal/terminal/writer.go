package terminal

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
)

// Writer is a stream that a terminal may show. It passes on lines of text and of
// JSON; of everything else that a terminal would act on it writes the escape that
// JSON has for it. In JSON such characters stand in strings alone, so that the value
// is the same. Writers are safe for concurrent use.
type Writer struct {
	to     io.Writer
	colors bool

	mu   sync.Mutex
	rest []byte // the beginning of a character whose end has not come
}

// NewWriter returns a guarded stream. One that is guarded already is returned itself.
func NewWriter(to io.Writer) *Writer {
	if w, ok := to.(*Writer); ok {
		return w
	}
	return &Writer{to: to}
}

// WithColors returns a Writer to the same stream that also passes on the sequences
// that set and reset colors. It is for those whose values have passed Line.
func (w *Writer) WithColors() *Writer { return &Writer{to: w.to, colors: true} }

// IsTerminal reports whether the stream is a terminal.
func (w *Writer) IsTerminal() bool {
	file, ok := w.to.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Write implements io.Writer. It holds back up to three bytes of a character that p
// begins and does not end.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := p
	if len(w.rest) > 0 {
		text = append(w.rest, p...)
	}
	text, rest := cutLast(text)
	safe := w.safe(text)
	w.rest = append([]byte(nil), rest...)
	if _, err := w.to.Write(safe); err != nil {
		return 0, err
	}
	return len(p), nil
}

// cutLast cuts off a last character that is incomplete.
func cutLast(text []byte) (whole, rest []byte) {
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if start := len(text) - back; utf8.RuneStart(text[start]) {
			if !utf8.FullRune(text[start:]) {
				return text[:start], text[start:]
			}
			break
		}
	}
	return text, nil
}

var color = regexp.MustCompile(`^\x1b\[[0-9]{1,3}m`)

// safe is text with escapes; the same slice if there is nothing to escape.
func (w *Writer) safe(text []byte) []byte {
	var out []byte // nil: as text so far
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(text[i:])
		}
		escape := ""
		switch {
		case r == '\n', r == '\t':
		case r == utf8.RuneError:
			if size == 1 {
				escape = string(utf8.RuneError)
			}
		case r == '\x1b' && w.colors && color.Match(text[i:]):
			size = len(color.Find(text[i:]))
		case acts(r) && r > 0xffff:
			high, low := utf16.EncodeRune(r)
			escape = fmt.Sprintf(`\u%04x\u%04x`, high, low)
		case acts(r):
			escape = fmt.Sprintf(`\u%04x`, r)
		}
		if escape != "" && out == nil {
			out = append(make([]byte, 0, len(text)+16), text[:i]...)
		}
		switch {
		case escape != "":
			out = append(out, escape...)
		case out != nil:
			out = append(out, text[i:i+size]...)
		}
		i += size
	}
	if out == nil {
		return text
	}
	return out
}
