package terminal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/terminal"
)

// hostile has something of each kind that a terminal acts on.
const hostile = "a\x1b[2Jb\x9bc\u009b31md\r\ne\tf\x7fg\u202eh\u2066i\u2028j\ufeffk\U000e0041l\x00m\xffn\u00ado\u200bp"

const line = `a\u001b[2Jb\x9bc\u009b31md\r\ne\tf\u007fg\u202eh\u2066i\u2028j\ufeffk\U000e0041l\u0000m\xffn\u00ado\u200bp`

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "", hostile: line, `plain \n`: `plain \n`,
		"Zürich 東京\u3000 🙂 👩\u200d🚀 می\u200cخواهم \ufffd": "Zürich 東京\u3000 🙂 👩\u200d🚀 می\u200cخواهم \ufffd",
	} {
		if got := terminal.Line(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
	}
}

func TestBlockKeepsLines(t *testing.T) {
	if got := terminal.Block("a\n\tb\r\n\x1b[0m"); got != "a\n    b\\r\n\\u001b[0m" {
		t.Errorf("got %q", got)
	}
}

type named string

type number int

func (n number) String() string { return "number\n" }

func TestFprintf(t *testing.T) {
	var out bytes.Buffer
	n, err := terminal.Fprintf(&out, "%s|%v|%q|%-4s|%d|%d|%s|%s|%s|%v|%q|%s\n",
		"\n", errors.New("\x1b"), "\n", "\r", 7, number(5), number(5), named("\t"), json.RawMessage("\u009b"), []string{"\n", "b"}, []string{"\n"}, time.Second)
	const want = `\n|\u001b|"\n"|\r  |7|5|number\n|\t|\u009b|[\n b]|["\n"]|1s` + "\n"
	if out.String() != want || n != len(want) || err != nil {
		t.Errorf("printed %q (%d, %v), want %q", out.String(), n, err, want)
	}
}

func TestWriterLeavesJSONEqual(t *testing.T) {
	want := map[string]any{"text": strings.ToValidUTF8(hostile, "?"), hostile[:6]: []any{"\u0085", "\U000e0001", "\ufffd", "東京"}}
	for size := 1; size < 7; size++ { // however it is cut
		var out bytes.Buffer
		w := terminal.NewWriter(&out)
		if terminal.NewWriter(w) != w {
			t.Error("guarded twice")
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		for len(text) > 0 {
			n := min(size, len(text))
			if m, err := w.Write(text[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			text = text[n:]
		}
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v in %s", err, out.String())
		}
		if a, _ := json.Marshal(got); !bytes.Equal(a, must(json.Marshal(want))) {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, r := range out.String() {
			if unicode.In(r, unicode.Cc, unicode.Cf) {
				t.Errorf("%q is written", r)
			}
		}
	}
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

func TestWriterHoldsBackWhatActs(t *testing.T) {
	var out bytes.Buffer
	w := terminal.NewWriter(&out)
	for _, text := range []string{"a\n\tb ", "\x1b[31m", "\xff\x9b", "\u202e", "\r", "\U000e0041", "\x1b[0m"} {
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.WithColors().Write([]byte("\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07\n")); err != nil {
		t.Fatal(err)
	}
	const want = "a\n\tb \\u001b[31m\ufffd\ufffd\\u202e\\u000d\\udb40\\udc41\\u001b[0m\x1b[31mred\x1b[0m \\u001b[2J\\u001b]0;title\\u0007\n"
	if out.String() != want || !utf8.ValidString(want) {
		t.Errorf("written %q\nwant    %q", out.String(), want)
	}
}
