package taskfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLines(t *testing.T) {
	full := strings.Repeat("x", maxLine)
	snow := strings.Repeat("☃", maxLine/3+1) // maxLine is no multiple of 3
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":        {"", nil},
		"lines":          {"a\nb\n", []string{"a", "b"}},
		"empty lines":    {"\n\na\n", []string{"", "", "a"}},
		"no last end":    {"a\nb", []string{"a", "b"}},
		"windows":        {"a\r\nb\r\r\n\r\n", []string{"a", "b\r", ""}},
		"a lone return":  {"10%\r20%\n", []string{"10%\r20%"}},
		"no UTF-8":       {"a\xffb\xe2\x98\n", []string{"a\uFFFDb\uFFFD"}},
		"NUL":            {"a\x00b\n", []string{"a\uFFFDb"}},
		"just full":      {full + "\nb", []string{full, "b"}},
		"just full, CR":  {full + "\r\nb", []string{full, "b"}},
		"full, no end":   {full, []string{full}},
		"beyond":         {full + "yz\n", []string{full, "yz"}},
		"far beyond":     {full + full + "y\n\n", []string{full, full, "y", ""}},
		"whole runes":    {snow + "\n", []string{snow[:maxLine/3*3], "☃"}},
		"cut of garbage": {strings.Repeat("\xbf", maxLine) + "y\n", []string{"\uFFFD", "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, chunk := range []int{1, 2, 1000, maxLine, 1 << 30} {
				var got []string
				lines := &lineSplitter{emit: func(line string) { got = append(got, line) }}
				for rest := c.in; rest != ""; {
					n := min(chunk, len(rest))
					if _, err := lines.Write([]byte(rest[:n])); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
					if len(lines.rest) > maxLine {
						t.Fatalf("%d bytes are kept", len(lines.rest))
					}
				}
				lines.end()
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Fatalf("in chunks of %d: %s", chunk, diff)
				}
			}
		})
	}
}
