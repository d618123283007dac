package contain

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ASCII is a text whose other characters are escaped, such as \u65e5, which JSON understands
// too. Every database encoding can hold it.
func ASCII(text string) string {
	if !strings.ContainsFunc(text, beyondASCII) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !beyondASCII(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}

func beyondASCII(r rune) bool { return r == 0 || r >= utf8.RuneSelf }
