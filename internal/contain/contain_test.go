package contain_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/contain"
)

type snooze struct{ n int }

func (*snooze) Error() string { return "snooze" }

type as struct{ snooze *snooze }

func (as) Error() string { return "as" }
func (a as) As(target any) bool {
	t, is := target.(**snooze)
	if is {
		*t = a.snooze
	}
	return is
}

type is struct{ error }

func (i is) Is(target error) bool { return target == i.error }

func TestCall(t *testing.T) {
	if err := contain.Call(func() {}); err != nil {
		t.Error(err)
	}
	if err := contain.Call(runtime.Goexit); err != contain.ErrGoexit {
		t.Error(err)
	}
	err := contain.Call(func() { panic("boom") })
	if err == nil || err.Error() != "panic: boom" || !strings.Contains(contain.Stack(err), "contain_test.go") {
		t.Error(err)
	}
	if err := contain.Call(func() { panic(nil) }); err == nil {
		t.Error("panic(nil) is none")
	}
}

// TestFindsWhatErrorsFinds compares with the standard library.
func TestFindsWhatErrorsFinds(t *testing.T) {
	one, two, sentinel := &snooze{1}, &snooze{2}, errors.New("sentinel")
	for name, err := range map[string]error{
		"nil": nil, "itself": one, "sentinel": sentinel, "other": errors.New("x"),
		"wrapped": fmt.Errorf("a: %w", fmt.Errorf("b: %w", one)), "joined": errors.Join(errors.New("x"), errors.Join(sentinel, two), one),
		"several": fmt.Errorf("%w %w %w", errors.New("x"), fmt.Errorf("%w", two), one), "As": errors.Join(as{two}, one), "Is": fmt.Errorf("%w", is{sentinel}),
		"read before": fmt.Errorf("%w %w", errors.New("x"), contain.Read(errors.Join(one, sentinel))),
	} {
		var want *snooze
		wants := errors.As(err, &want)
		if got, ok := contain.As[*snooze](err); ok != wants || got != want {
			t.Errorf("%s: As is %v, %t, want %v, %t", name, got, ok, want, wants)
		}
		if got, want := contain.Is(err, sentinel), errors.Is(err, sentinel); got != want {
			t.Errorf("%s: Is is %t, want %t", name, got, want)
		}
		if read := contain.Read(err); errors.Is(read, sentinel) != errors.Is(err, sentinel) || contain.Original(read) != err {
			t.Errorf("%s: it is not found in what was read", name)
		}
	}
}

func TestTextsAreBounded(t *testing.T) {
	for name, text := range map[string]string{
		"huge": strings.Repeat("x", 1<<20), "two bytes": strings.Repeat("é", 1<<20), "four bytes": "x" + strings.Repeat("😀", 1<<20),
		"not UTF-8": strings.Repeat("\xff", 1<<20), "NUL": strings.Repeat("\x00", contain.MaxText/2), "just so": strings.Repeat("y", contain.MaxText),
	} {
		got := contain.Text(errors.New(text))
		if len(got) > contain.MaxText || !utf8.ValidString(got) || strings.ContainsRune(got, 0) {
			t.Errorf("%s: %d bytes, ends with %q", name, len(got), got[len(got)-20:])
		}
		if cut := strings.HasSuffix(got, " [cut]"); cut == (name == "just so") {
			t.Errorf("%s: cut: %t", name, cut)
		}
		panicked := contain.Call(func() { panic(text) })
		if long := contain.LongText(panicked); len(long) > contain.MaxText || !strings.Contains(long, "\n\ngoroutine ") || !utf8.ValidString(long) {
			t.Errorf("%s: with the stack %d bytes", name, len(long))
		}
	}
}

func TestValuesThatHaveNoEnd(t *testing.T) {
	m := map[string]any{}
	m["self"] = m
	s := []any{nil}
	s[0] = s
	type node struct{ Next any }
	n := &node{}
	n.Next = []any{n, m}
	for name, value := range map[string]any{
		"map": m, "slice": s, "pointer": n, "struct": *n, "pointer to map": &m,
		"many": make([]any, 1<<20), "huge": make([]byte, 1<<20),
	} {
		if got := contain.TextOf(value); !strings.HasPrefix(got, "a value of type ") || len(got) > 200 {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	for want, value := range map[string]any{
		"[1 2]": []int{1, 2}, "map[a:[1 <nil>]]": map[string]any{"a": []any{1, nil}}, "&{<nil>}": &node{}, "5": 5,
		`"", of type string`: "", "<nil>": (*node)(nil),
	} {
		if got := contain.TextOf(value); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestLongTextKeepsTheStackAsItIs(t *testing.T) {
	err := contain.Call(func() { panic("boom") })
	if got, want := contain.LongText(err), "panic: boom\n\n"+contain.Stack(err); got != want || !strings.Contains(got, "\n\t") {
		t.Errorf("%q, want %q", got, want)
	}
	if got := contain.LongText(fmt.Errorf("outside: %w", err)); got != "outside: panic: boom\n\n"+contain.Stack(err) {
		t.Errorf("%q", got)
	}
}

func TestClockGoesOn(t *testing.T) {
	then := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	var fail func()
	var told int
	clock := contain.Clock(func() time.Time {
		if fail != nil {
			fail()
		}
		return then
	}, func(error) { told++ })
	if !clock().Equal(then) {
		t.Error("it is not the clock that was given")
	}
	for _, fail = range []func(){runtime.Goexit, func() { panic("boom") }} {
		if got := clock(); got.Before(then) || got.After(then.Add(time.Hour)) {
			t.Errorf("it is %s", got)
		}
	}
	if told != 1 {
		t.Errorf("told %d times of failures in a row", told)
	}
	fail = nil
	if !clock().Equal(then) {
		t.Error("it does not come back")
	}
	always := contain.Clock(func() time.Time { panic("never") }, func(error) {})
	if time.Since(always()).Abs() > time.Hour {
		t.Error("it is not the machine's clock")
	}
}
