package json5_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/json5"
)

// What npm's json5 makes of these is compared in tests/interop.
func TestToJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{a: 1, 'b': "x", "c": 'y"z',}`:                `{"a":1,"b":"x","c":"y\"z"}`,
		`[1, 2,]`:                                      `[1,2]`,
		`{z: 1, a: 2, z: 3}`:                           `{"z":3,"a":2}`,
		`[+1, .5, 5., 0x1F, -0x10, 1e3, 1E+2]`:         `[1,0.5,5,31,-16,1e3,1e2]`,
		`[Infinity, -Infinity, NaN, 1e400, -0]`:        `[null,null,null,null,0]`,
		`[12345678901234567890, 0xFFFFFFFFFFFFFFFFFF]`: `[12345678901234567890,4722366482869645213695]`,
		"{a: \"tab\there\"}":                           `{"a":"tab\there"}`,
		`"\x41\u0042\0\v\'\"\q\/"`:                     `"AB\u0000\u000b'\"q/"`,
		"'a\\\nb\\\r\nc'":                              `"abc"`,
		`"\ud83d\ude00 \ud83d"`:                        `"\ud83d\ude00 \ud83d"`,
		`{ünï: true, $x: false, _y: null, \u0061b: 0}`: `{"ünï":true,"$x":false,"_y":null,"ab":0}`,
		"/* c */ {a: 1 // d\n}":                        `{"a":1}`,
		"\ufeff{\u00a0}":                               `{}`,
	} {
		got, err := json5.ToJSON(in)
		if err != nil || string(got) != want {
			t.Errorf("%s became %s (%v), want %s", in, got, err, want)
		}
		if !json.Valid(got) {
			t.Errorf("%s became %s, which is no JSON", in, got)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for in, want := range map[string]int{
		`{`: 2, `{a}`: 3, `{a:1,,}`: 6, `{a:1}}`: 6, `{a:01}`: 4, `{a:1 b:2}`: 6, `{a-b:1}`: 3, `{a:undefined}`: 4,
		`{a:0x}`: 6, `{a:"\01"}`: 6, `{a:"x`: 4, `{a:/* }`: 4, `{a:+ 1}`: 5, `{a:1x}`: 5, `{a:truex}`: 8, `{1:2}`: 2,
		`{é:"é}`: 4, `{a:"\x4"}`: 7, `{a:.}`: 5, "{a:'\n'}": 5, ``: 1, `{\u0020:1}`: 2, "\xff": 1,
	} {
		_, err := json5.ToJSON(in)
		var found *json5.Error
		if !errors.As(err, &found) || found.Column != want || found.Problem == "" {
			t.Errorf("%q: %v, want an error at character %d", in, err, want)
		}
	}
}

func TestDeepNestingIsAnError(t *testing.T) {
	if _, err := json5.ToJSON(strings.Repeat("[", 1_000_000)); err == nil {
		t.Error("a million brackets were accepted")
	}
}

func FuzzToJSON(f *testing.F) {
	for _, seed := range []string{`{a: 1, 'b': [.5, 0x1F,], c: "\x41\u0041"}`, `/**/ {$: -Infinity} //`, "'\\\n'"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, err := json5.ToJSON(text)
		if err != nil {
			return
		}
		if !json.Valid(once) {
			t.Fatalf("%q became %q, which is no JSON", text, once)
		}
		// JSON is JSON5, and means itself.
		if twice, err := json5.ToJSON(string(once)); err != nil || string(twice) != string(once) {
			t.Fatalf("%q became %q, and that %q (%v)", text, once, twice, err)
		}
	})
}
