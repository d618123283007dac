package cron_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/internal/cron"
)

func parseOne(t testing.TB, text string) *cron.Item {
	t.Helper()
	items, errs := cron.Parse(text)
	if len(errs) > 0 || len(items) != 1 {
		t.Fatalf("%q: %d items, %v", text, len(items), errs)
	}
	return &items[0]
}

func TestParseLine(t *testing.T) {
	got := parseOne(t, "# a comment\n\n  0,30 4-6 */10 1 7\treports/daily:all "+
		"?id=daily&fill=1w2d3h4m5s&max=3&queue=q_1:a&job_key=a%20b+c&job_key_mode=preserve_run_at&priority=-4&tz=Europe/Paris "+
		"{to: 'ada', n: [1,]}\r\n")
	if got.Schedule.String() != "0,30 4-6 */10 1 7" || got.Zone.Name() != "Europe/Paris" {
		t.Errorf("schedule %q in %q", got.Schedule.String(), got.Zone.Name())
	}
	want := cron.Item{
		Schedule: got.Schedule, Zone: got.Zone, Task: "reports/daily:all", Identifier: "daily",
		Fill:        (9*24+3)*time.Hour + 4*time.Minute + 5*time.Second,
		MaxAttempts: 3, Queue: "q_1:a", Key: "a b c", KeyMode: "preserve_run_at", Priority: -4,
		Payload: []byte(`{"to":"ada","n":[1]}`), Line: 3,
	}
	if !equal(got, &want) || got.Line != 3 {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	plain := parseOne(t, "\ufeff* * * * * task")
	if plain.Identifier != "task" || plain.Fill != 0 || plain.Payload != nil || plain.Zone.Name() != "" {
		t.Errorf("defaults: %+v", plain)
	}
}

func TestCronTZIsForTheLinesAfterIt(t *testing.T) {
	items, errs := cron.Parse(`
* * * * * a
CRON_TZ=Europe/Paris
* * * * * b
* * * * * c ?tz=Asia/Tokyo
CRON_TZ = "America/New_York"
* * * * * d
* * * * * e ?tz=Etc/GMT+5
CRON_TZ=
* * * * * f`)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var got []string
	for _, i := range items {
		got = append(got, i.Task+" "+i.Zone.Name())
	}
	want := []string{"a ", "b Europe/Paris", "c Asia/Tokyo", "d America/New_York", "e Etc/GMT+5", "f "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each line that is wrong has its error, and the others their items.
func TestEveryErrorWithItsLineAndField(t *testing.T) {
	for line, fields := range map[string]string{
		"60 * * * * t":                          "minute",
		"* 24 * * * t":                          "hour",
		"* * 0 * * t":                           "day of month",
		"* * * 13 * t":                          "month",
		"* * * * 8 t":                           "day of week",
		"99999999999999999999 * * * * t":        "minute",
		"5-5 * * * * t":                         "minute",
		"*/0 6-5 * * * t":                       "minute,hour",
		"*/ * * * * t":                          "minute",
		"1-5/2 * * * * t":                       "minute",
		", * * * * t":                           "minute",
		"*5 * * * * t":                          "minute",
		"* * * jan * t":                         "month",
		"-1 * * * * t":                          "minute",
		"@daily t":                              "minute",
		"* * * *":                               "day of week",
		"* * * * *":                             "task",
		"* * * * * 1t":                          "task",
		"* * * * * té":                          "task",
		"* * * * * " + strings.Repeat("t", 129): "task",
		"* * * * * t ?":                         "options",
		"* * * * * t ?x=1":                      "options",
		"* * * * * t ?constructor=1":            "options",
		"* * * * * t ?id=1a":                    "id",
		"* * * * * t ?id=a&id=b":                "id",
		"* * * * * t ?jobKey=a&job_key=b":       "jobKey",
		"* * * * * t ?jobKey=":                  "jobKey",
		"* * * * * t ?fill=1y":                  "fill",
		"* * * * * t ?fill=":                    "fill",
		"* * * * * t ?fill=999999999999w":       "fill",
		"* * * * * t ?max=0":                    "max",
		"* * * * * t ?max=+1":                   "max",
		"* * * * * t ?max=32768":                "max",
		"* * * * * t ?priority=1.5":             "priority",
		"* * * * * t ?priority=-32769":          "priority",
		"* * * * * t ?queue=a.b":                "queue",
		"* * * * * t ?jobKeyMode=unsafe_dedupe": "jobKeyMode",
		"* * * * * t ?jobKey=%FF":               "jobKey",
		"* * * * * t ?jobKey=a%00":              "jobKey",
		"* * * * * t ?tz=Mars/Base":             "tz",
		"* * * * * t ?tz=Local":                 "tz",
		"* * * * * t ?tz=":                      "tz",
		"* * * * * t ?max=0&fill=x {a:}":        "max,fill,payload",
		"* * * * * t {a: 1":                     "payload",
		"* * * * * t {a: 1} {b: 2}":             "payload",
		"* * * * * t {a: 1} // note":            "payload",
		"* * * * * t [1]":                       "payload",
		"* * * * * t extra":                     "payload",
		"* * * * * \xff":                        "line",
		"CRON_TZ=Nowhere":                       "CRON_TZ",
		"SHELL=/bin/sh":                         "SHELL",
		"* * * * * first":                       "id",
	} {
		items, errs := cron.Parse("* * * * * first\n" + line + "\n* * * * * last")
		if len(items) != 2 || items[0].Task != "first" || items[1].Task != "last" {
			t.Errorf("%q: the other lines became %v", line, items)
		}
		var got []string
		for _, err := range errs {
			got = append(got, err.Field)
			if err.Line != 2 || err.Problem == "" {
				t.Errorf("%q: %v", line, err)
			}
		}
		if strings.Join(got, ",") != fields {
			t.Errorf("%q: errors in %v, want %s: %v", line, got, fields, errs)
		}
		var one *cron.Error
		if !errors.As(error(errs), &one) {
			t.Errorf("%q: no *Error is found in %v", line, errs)
		}
	}
}

func TestPrintedLineMeansTheSame(t *testing.T) {
	for _, line := range []string{
		"* * * * * t",
		"0 4 * * 1-5 t ?id=x&fill=1w1s&max=7&queue=q&jobKey=a%26b%3D%20%25%2B/é&jobKeyMode=replace&priority=-1&tz=Etc/GMT%2B5",
		`*/5 1,2 * * 0 a/b:c {"a":"<\u2028>","b":[1,2.50,12345678901234567890]}`,
	} {
		first := parseOne(t, line)
		again := parseOne(t, first.String())
		if first.String() != again.String() || !equal(first, again) {
			t.Errorf("%s\nbecame  %s\nbecame  %s", line, first, again)
		}
	}
}

// equal compares all but the line.
func equal(a, b *cron.Item) bool {
	return a.Schedule == b.Schedule && a.Zone.Name() == b.Zone.Name() && a.Task == b.Task && a.Identifier == b.Identifier &&
		a.Fill == b.Fill && a.MaxAttempts == b.MaxAttempts && a.Queue == b.Queue && a.Key == b.Key &&
		a.KeyMode == b.KeyMode && a.Priority == b.Priority && string(a.Payload) == string(b.Payload)
}

// White space is what JavaScript takes for it, and a line ends where it does there.
func TestWhiteSpaceIsThatOfNode(t *testing.T) {
	t.Parallel()
	for _, r := range "\t\v\f \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\ufeff\r\u2028\u2029" {
		s := string(r)
		for _, text := range []string{s + "* * * * * t", "*" + s + "* * * * t", "* * * * *" + s + "t", "* * * * * t" + s, s + "# comment", s} {
			if _, errs := cron.Parse(text); len(errs) > 0 {
				t.Errorf("%+q: %v", text, errs)
			}
		}
		for _, text := range []string{"* * * * * t" + s + "?id=a", "* * * * * t" + s + "{a: 1}", "* * * * * t ?id=a" + s + "{a: 1}"} {
			_, errs := cron.Parse(text)
			if refused := len(errs) > 0; refused != strings.Contains("\r\u2028\u2029", s) {
				t.Errorf("%+q: %v", text, errs)
			}
		}
	}
	for _, r := range "\u0085\u180e\u200b\u200c\u200d\u2060\u00ad\x1c\x1d\x1e\x1f\x00" {
		s := string(r)
		for _, text := range []string{
			s + "* * * * * t", "*" + s + "* * * * t", "* * * * *" + s + "t", "* * * * * t" + s, "* * * * * t" + s + "?id=a",
			"* * * * * t" + s + "{a: 1}", "* * * * * t {a: 1}" + s, s + "# comment", s, "* * * * * t {a:" + s + "1}",
		} {
			if items, errs := cron.Parse(text); len(errs) == 0 {
				t.Errorf("%+q is %+v", text, items)
			}
		}
		if _, err := cron.ParseSchedule("*" + s + "* * * *"); err == nil {
			t.Errorf("ParseSchedule takes %+q", s)
		}
	}
}
