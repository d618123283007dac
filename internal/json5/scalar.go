package json5

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// quoted reads a string in either kind of quotes and appends it to out as JSON.
func (p *parser) quoted(out []byte) []byte {
	start := p.at
	quote := p.next()
	out = append(out, '"')
	for {
		at := p.at
		switch r := p.next(); {
		case r < 0:
			p.fail(start, "the string does not end")
		case r == quote:
			return append(out, '"')
		case r == '\n' || r == '\r':
			p.fail(at, "the string does not end on its line")
		case r == '\\':
			out = p.escape(out)
		default:
			out = appendRune(out, r)
		}
	}
}

var escapes = map[rune]rune{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v'}

// escape reads what comes after a backslash.
func (p *parser) escape(out []byte) []byte {
	at := p.at
	r := p.next()
	if meant, ok := escapes[r]; ok {
		return appendRune(out, meant)
	}
	switch {
	case r < 0:
		p.fail(at-1, "the string does not end")
	case r == 'x':
		return appendRune(out, p.hex(2))
	case r == 'u':
		unit := p.hex(4)
		if !utf16.IsSurrogate(unit) {
			return appendRune(out, unit)
		}
		// JSON has halves of pairs in escapes of their own, too.
		return fmt.Appendf(out, `\u%04x`, unit)
	case r == '0' && !isDigit(p.peek()):
		return appendRune(out, 0)
	case isDigit(r):
		p.fail(at, `"\%c" is no escape`, r)
	case r == '\r':
		p.skip("\n")
		return out
	case isLineEnd(r):
		return out
	}
	return appendRune(out, r)
}

// hex reads a number of hexadecimal digits.
func (p *parser) hex(digits int) rune {
	start := p.at
	for range digits {
		if !isHex(p.peek()) {
			p.fail(start, "%d hexadecimal digits are needed", digits)
		}
		p.at++
	}
	value, err := strconv.ParseUint(p.text[start:p.at], 16, 32)
	if err != nil {
		p.fail(start, "%q is no hexadecimal number", p.text[start:p.at])
	}
	return rune(value)
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

func isHex(r rune) bool { return isDigit(r) || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F' }

// appendRune appends a character as it stands in a JSON string.
func appendRune(out []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(out, '\\', byte(r))
	case r == '\n':
		return append(out, `\n`...)
	case r == '\t':
		return append(out, `\t`...)
	case r < 0x20 || r == 0x7f || isLineEnd(r):
		return fmt.Appendf(out, `\u%04x`, r)
	}
	return utf8.AppendRune(out, r)
}

// number reads a number. JSON has no sign before positive ones, no bare points
// and no hexadecimals, so those are spelled anew.
func (p *parser) number() {
	sign := ""
	if !p.skip("+") && p.skip("-") {
		sign = "-"
	}
	start := p.at
	switch {
	case p.skip("Infinity") || p.skip("NaN"):
		p.endOfWord()
		p.out = append(p.out, "null"...)
	case p.skip("0x") || p.skip("0X"):
		digits := p.digits(isHex)
		if digits == "" {
			p.unexpected("a hexadecimal digit")
		}
		p.endOfWord()
		value, ok := new(big.Int).SetString(digits, 16)
		if !ok {
			p.fail(start, "%q is no number", p.text[start:p.at])
		}
		p.appendNumber(sign + value.String())
	default:
		p.decimal(start, sign)
	}
}

func (p *parser) digits(belongs func(rune) bool) string {
	start := p.at
	for belongs(p.peek()) {
		p.at++
	}
	return p.text[start:p.at]
}

func (p *parser) decimal(start int, sign string) {
	whole, fraction, exponent := p.digits(isDigit), "", ""
	if len(whole) > 1 && whole[0] == '0' {
		p.fail(start, "a number cannot begin with 0 and another digit")
	}
	if p.skip(".") {
		fraction = p.digits(isDigit)
	}
	if whole == "" && fraction == "" {
		p.unexpected("a digit")
	}
	if p.skip("e") || p.skip("E") {
		exponent = "e"
		if p.skip("-") {
			exponent = "e-"
		} else {
			p.skip("+")
		}
		digits := p.digits(isDigit)
		if digits == "" {
			p.unexpected("a digit")
		}
		exponent += digits
	}
	p.endOfWord()
	if whole == "" {
		whole = "0"
	}
	if fraction != "" {
		fraction = "." + fraction
	}
	p.appendNumber(sign + whole + fraction + exponent)
}

// appendNumber writes a number, or null where a JavaScript number would be
// infinite.
func (p *parser) appendNumber(text string) {
	value, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil && math.IsInf(value, 0):
		text = "null"
	case value == 0 && strings.HasPrefix(text, "-"):
		text = "0" // as JSON.stringify has it
	}
	p.out = append(p.out, text...)
}
