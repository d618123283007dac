package cron_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/cron"
)

// Whatever the text: every error has its place, and an item means the same when
// it is printed and read again, and its next minute is the first that matches.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"* * * * * t",
		"# c\r\n\r\n*/5 0-23/2 1,15 * 7 a/b:c-d ?id=x&fill=4w3d2h1m&max=3&queue=q&jobKey=k%20+&jobKeyMode=replace&priority=-1 {a: [1,], 'b': .5}",
		"CRON_TZ=Europe/Paris\n30 2 * * * t\n30 2 * * * u ?tz=Etc/GMT+5\nCRON_TZ='UTC'",
		"0 0 29 2 * t\n0 0 31 2 1 u ?fill=1w",
		"* * * * * t ?jobKey=100%&jobKeyMode=preserve_run_at {\"_cron\": \"\\ud83d\", é: Infinity /* } */ }",
		"@daily t", "60 24 32 13 8 é ? x", "* * * * * t\n* * * * * t", "\xff\x00", "MAILTO=x", "* * * * * t ?job_key=a&&=",
	} {
		f.Add(seed)
	}
	begin := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		items, errs := cron.Parse(text)
		lines := strings.Count(text, "\n") + 1
		for _, err := range errs {
			if err.Line < 1 || err.Line > lines || err.Field == "" || err.Problem == "" {
				t.Fatalf("an error without a place: %+v", err)
			}
		}
		seen := map[string]bool{}
		for n := range items {
			item := &items[n]
			if seen[item.Identifier] {
				t.Fatalf("identifier %q comes twice", item.Identifier)
			}
			seen[item.Identifier] = true
			if item.Payload != nil && !json.Valid(item.Payload) {
				t.Fatalf("the payload is no JSON: %s", item.Payload)
			}
			line := item.String()
			again, errs := cron.Parse(line)
			if len(errs) > 0 || len(again) != 1 || !equal(item, &again[0]) {
				t.Fatalf("line %d of %q is printed as %q, which means %+v (%v)", item.Line, text, line, again, errs)
			}
			if n > 2 {
				continue // a text of many lines says nothing new
			}
			next := item.Next(begin)
			for minute := begin.Add(time.Minute); minute.Before(begin.Add(48 * time.Hour)); minute = minute.Add(time.Minute) {
				if matches := item.Matches(minute); matches != minute.Equal(next) {
					t.Fatalf("%q: next after %s is %s, but %s matches: %t", line, begin, next, minute, matches)
				} else if matches {
					break
				}
			}
		}
	})
}
