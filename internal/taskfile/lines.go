package taskfile

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// maxLine is the longest line that is handed on whole, in bytes. A longer one
// comes in pieces, so that a process cannot fill the worker's memory.
const maxLine = 64 << 10

// lineSplitter is a Writer that emits what is written to it line by line, as
// text that any log can hold.
type lineSplitter struct {
	emit func(line string)
	rest []byte // of a line whose end has not come, at most maxLine
	cut  bool   // a piece of that line has been emitted
}

func (l *lineSplitter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, after, ended := bytes.Cut(p, []byte{'\n'})
		l.add(line)
		if ended {
			l.endLine()
		}
		p = after
	}
	return n, nil
}

// add takes a part of a line.
func (l *lineSplitter) add(part []byte) {
	for len(l.rest)+len(part) > maxLine {
		room := maxLine - len(l.rest)
		l.rest = append(l.rest, part[:room]...)
		part = part[room:]
		n := wholeRunes(l.rest)
		l.emit(clean(l.rest[:n]))
		l.rest = append(l.rest[:0], l.rest[n:]...)
		l.cut = true
	}
	l.rest = append(l.rest, part...)
}

// endLine emits what is left of a line. Nothing may be left after a cut: the
// line was just as long as its pieces.
func (l *lineSplitter) endLine() {
	line := bytes.TrimSuffix(l.rest, []byte{'\r'})
	if len(line) > 0 || !l.cut {
		l.emit(clean(line))
	}
	l.rest, l.cut = l.rest[:0], false
}

// end emits a last line that has no newline.
func (l *lineSplitter) end() {
	if len(l.rest) > 0 {
		l.endLine()
	}
}

// wholeRunes is how much of p ends with a whole character.
func wholeRunes(p []byte) int {
	for back := 1; back < utf8.UTFMax && back < len(p); back++ {
		if start := len(p) - back; utf8.RuneStart(p[start]) {
			if !utf8.FullRune(p[start:]) {
				return start
			}
			break
		}
	}
	return len(p)
}

// clean replaces what is no text.
func clean(line []byte) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(line), "\uFFFD"), "\x00", "\uFFFD")
}
