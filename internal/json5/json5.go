// Package json5 converts JSON5, as people write it in a crontab, to JSON, as
// PostgreSQL stores it.
//
// Text comes in; JSON text goes out, with the members of objects in their order and
// numbers in their digits. The one thing not to break: what the json5 package of npm
// accepts is accepted here with the same meaning, because Node's Graphile Worker reads
// crontabs with it. (No Go module does that: the only one with a release, of 2023,
// refuses tabs, line continuations, most escapes in strings, and names beyond ASCII.)
// So NaN and the infinities, which JSON does not have, become null. Only integers keep
// more than on Node: all their digits.
package json5

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// An Error says where a text is not JSON5.
type Error struct {
	// Column counts characters from 1, in the text as a whole.
	Column  int
	Problem string
}

func (e *Error) Error() string { return fmt.Sprintf("at character %d: %s", e.Column, e.Problem) }

// maxDepth bounds nesting; encoding/json has the same bound.
const maxDepth = 10_000

// ToJSON translates one value. Errors are of type *Error.
func ToJSON(text string) (json []byte, err error) {
	p := &parser{text: text}
	if !utf8.ValidString(text) {
		return nil, &Error{Column: 1, Problem: "the text is not valid UTF-8"}
	}
	defer func() {
		if stop, ok := recover().(*Error); ok {
			json, err = nil, stop
		} else if !ok && stop != nil {
			panic(stop)
		}
	}()
	p.space()
	p.value(0)
	p.space()
	if p.at < len(p.text) {
		p.unexpected("the end")
	}
	return p.out, nil
}

type parser struct {
	text string
	at   int
	out  []byte
}

// fail ends the parse; ToJSON returns the error.
func (p *parser) fail(at int, format string, args ...any) {
	panic(&Error{Column: utf8.RuneCountInString(p.text[:at]) + 1, Problem: fmt.Sprintf(format, args...)})
}

func (p *parser) unexpected(wanted string) {
	if p.at >= len(p.text) {
		p.fail(p.at, "the text ends where %s should be", wanted)
	}
	p.fail(p.at, "%q stands where %s should be", p.peek(), wanted)
}

// peek returns the next character, or -1 at the end.
func (p *parser) peek() rune {
	if p.at >= len(p.text) {
		return -1
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.at:])
	return r
}

func (p *parser) next() rune {
	r := p.peek()
	if r >= 0 {
		p.at += utf8.RuneLen(r)
	}
	return r
}

func (p *parser) skip(prefix string) bool {
	if len(p.text)-p.at < len(prefix) || p.text[p.at:p.at+len(prefix)] != prefix {
		return false
	}
	p.at += len(prefix)
	return true
}

func isLineEnd(r rune) bool { return r == '\n' || r == '\r' || r == '\u2028' || r == '\u2029' }

func isSpace(r rune) bool {
	switch r {
	case '\t', '\v', '\f', '\ufeff':
		return true
	}
	return isLineEnd(r) || unicode.Is(unicode.Zs, r)
}

// space skips white space and comments.
func (p *parser) space() {
	for {
		start := p.at
		switch {
		case isSpace(p.peek()):
			p.next()
		case p.skip("//"):
			for r := p.peek(); r >= 0 && !isLineEnd(r); r = p.peek() {
				p.next()
			}
		case p.skip("/*"):
			for !p.skip("*/") {
				if p.next() < 0 {
					p.fail(start, "the comment does not end")
				}
			}
		default:
			return
		}
	}
}

func (p *parser) value(depth int) {
	if depth > maxDepth {
		p.fail(p.at, "more than %d levels are nested", maxDepth)
	}
	switch r := p.peek(); {
	case r == '{':
		p.object(depth)
	case r == '[':
		p.array(depth)
	case r == '"' || r == '\'':
		p.out = p.quoted(p.out)
	case r == '+' || r == '-' || r == '.' || r == 'I' || r == 'N' || '0' <= r && r <= '9':
		p.number()
	default:
		for _, word := range []string{"true", "false", "null"} {
			if p.skip(word) {
				p.endOfWord()
				p.out = append(p.out, word...)
				return
			}
		}
		p.unexpected("a value")
	}
}

// endOfWord refuses letters that go on after a literal.
func (p *parser) endOfWord() {
	if r := p.peek(); isNamePart(r) || r == '\\' {
		p.unexpected("the end of the value")
	}
}

func (p *parser) array(depth int) {
	p.next()
	p.out = append(p.out, '[')
	for first := true; ; first = false {
		p.space()
		if p.skip("]") {
			break
		}
		if !first {
			p.out = append(p.out, ',')
		}
		p.value(depth + 1)
		p.space()
		if p.skip("]") {
			break
		}
		if !p.skip(",") {
			p.unexpected(`"," or "]"`)
		}
	}
	p.out = append(p.out, ']')
}

// object writes the members in the order in which their names came first, each
// with the value that came last, as JavaScript's objects have it.
func (p *parser) object(depth int) {
	p.next()
	outer := p.out
	var names []string
	values := map[string][]byte{}
	for {
		p.space()
		if p.skip("}") {
			break
		}
		name := p.name()
		p.space()
		if !p.skip(":") {
			p.unexpected(`":"`)
		}
		p.space()
		p.out = nil
		p.value(depth + 1)
		if _, ok := values[name]; !ok {
			names = append(names, name)
		}
		values[name] = p.out
		p.space()
		if p.skip("}") {
			break
		}
		if !p.skip(",") {
			p.unexpected(`"," or "}"`)
		}
	}
	p.out = append(outer, '{')
	for i, name := range names {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		p.out = append(append(append(p.out, name...), ':'), values[name]...)
	}
	p.out = append(p.out, '}')
}

// name reads a member's name and returns it as a JSON string.
func (p *parser) name() string {
	if r := p.peek(); r == '"' || r == '\'' {
		return string(p.quoted(nil))
	}
	name := []byte{'"'}
	for first := true; ; first = false {
		start := p.at
		r := p.peek()
		escaped := r == '\\'
		switch {
		case escaped:
			p.next()
			if !p.skip("u") {
				p.fail(start, `only \u can be escaped in a name`)
			}
			r = p.hex(4)
		case isNamePart(r):
			p.next()
		}
		if first && !isNameStart(r) || escaped && !isNamePart(r) {
			p.at = start
			p.unexpected("a name")
		}
		if !isNamePart(r) {
			break
		}
		name = appendRune(name, r)
	}
	return string(append(name, '"'))
}

func isNameStart(r rune) bool {
	return r == '$' || r == '_' || r >= 0 && (unicode.IsLetter(r) || unicode.Is(unicode.Nl, r))
}

func isNamePart(r rune) bool {
	return isNameStart(r) || r == '\u200c' || r == '\u200d' ||
		r >= 0 && unicode.In(r, unicode.Mn, unicode.Mc, unicode.Nd, unicode.Pc)
}
