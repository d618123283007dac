package cron_test

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02 15:04Z07:00", text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// runs lists the minutes from begin to before end at which a line is due, as its
// zone's clocks show them.
func runs(t testing.TB, line, begin, end string) (shown []string) {
	t.Helper()
	item := parseOne(t, line)
	for minute := at(t, begin); minute.Before(at(t, end)); minute = minute.Add(time.Minute) {
		if item.Matches(minute) {
			shown = append(shown, minute.In(item.Zone.Location()).Format("02 15:04 -07"))
		}
	}
	return shown
}

func TestDayOfMonthOrDayOfWeek(t *testing.T) {
	const begin, end = "2026-02-01 00:00Z", "2026-03-01 00:00Z" // 1 February 2026 is a Sunday
	for line, days := range map[string]string{
		"0 0 13 * *":      "13",
		"0 0 * * 5":       "06 13 20 27",
		"0 0 13 * 6":      "07 13 14 21 28",
		"0 0 */10 * *":    "01 11 21",
		"0 0 1-31 * 7":    "01 08 15 22",
		"0 0 */7 * 0-6":   "01 08 15 22",
		"0 0 31 * *":      "",
		"0 0 28 1,3-12 *": "",
		"0 0 */99 2 *":    "01",
	} {
		var got []string
		for _, run := range runs(t, line+" t", begin, end) {
			got = append(got, run[:2])
		}
		if strings.Join(got, " ") != days {
			t.Errorf("%s: %v, want %s", line, got, days)
		}
	}
}

// In Paris, clocks went from 2:00 to 3:00 on 29 March 2026 and go from 3:00 back
// to 2:00 on 25 October 2026, both at 1:00 UTC.
func TestChangesOfTheClock(t *testing.T) {
	const (
		spring, springEnd = "2026-03-29 00:00+01:00", "2026-03-29 05:00+02:00"
		autumn, autumnEnd = "2026-10-25 00:00+02:00", "2026-10-25 05:00+01:00"
	)
	for _, c := range []struct{ line, begin, end, want string }{
		// A time of day that is skipped runs at the next minute that exists, once.
		{"30 2 * * *", spring, springEnd, "29 03:00 +02"},
		{"0,15,59 2 * * *", spring, springEnd, "29 03:00 +02"},
		{"*/20 2 * * *", spring, springEnd, "29 03:00 +02"},
		{"0 2,3 * * *", spring, springEnd, "29 03:00 +02"},
		{"30 2 28 3 *", spring, springEnd, ""},
		{"30 2 * * 0", spring, springEnd, "29 03:00 +02"},
		{"0 */2 * * *", spring, springEnd, "29 00:00 +01,29 03:00 +02,29 04:00 +02"},
		{"30 1,3 * * *", spring, springEnd, "29 01:30 +01,29 03:30 +02"},
		// One that comes twice runs the first time.
		{"30 2 * * *", autumn, autumnEnd, "25 02:30 +02"},
		{"0 2,3 * * *", autumn, autumnEnd, "25 02:00 +02,25 03:00 +01"},
		{"0 */2 * * *", autumn, autumnEnd, "25 00:00 +02,25 02:00 +02,25 04:00 +01"},
		// What runs every hour follows real time.
		{"30 * * * *", spring, springEnd, "29 00:30 +01,29 01:30 +01,29 03:30 +02,29 04:30 +02"},
		{"30 0-23 * * *", autumn, autumnEnd, "25 00:30 +02,25 01:30 +02,25 02:30 +02,25 02:30 +01,25 03:30 +01,25 04:30 +01"},
		// So does the repetition where the minutes have a star.
		{"*/30 1-2 * * *", autumn, autumnEnd, "25 01:00 +02,25 01:30 +02,25 02:00 +02,25 02:30 +02,25 02:00 +01,25 02:30 +01"},
	} {
		got := strings.Join(runs(t, c.line+" t ?tz=Europe/Paris", c.begin, c.end), ",")
		if got != c.want {
			t.Errorf("%s from %s:\n got %s\nwant %s", c.line, c.begin, got, c.want)
		}
	}
}

func TestEveryFiveMinutesThroughChangesOfTheClock(t *testing.T) {
	for zone, day := range map[string]string{
		"Europe/Paris": "2026-03-29", "America/New_York": "2026-11-01", "Australia/Lord_Howe": "2026-04-05",
		"Africa/Cairo": "2026-04-24", "Pacific/Apia": "2011-12-30",
	} {
		item := parseOne(t, "*/5 * * * * t ?tz="+zone)
		begin := at(t, day+" 00:00Z").Add(-24 * time.Hour)
		for minute := 0; minute < 72*60; minute++ {
			if got := item.Matches(begin.Add(time.Duration(minute) * time.Minute)); got != (minute%5 == 0) {
				t.Fatalf("%s, %d minutes after %s: %t", zone, minute, begin, got)
			}
		}
	}
}

func TestOddChangesOfTheClock(t *testing.T) {
	for _, c := range []struct{ line, begin, end, want string }{
		// Half an hour, at 2:00.
		{"45 1 * * * t ?tz=Australia/Lord_Howe", "2026-04-04 12:00Z", "2026-04-05 12:00Z", "05 01:45 +11"},
		{"15 2 * * * t ?tz=Australia/Lord_Howe", "2026-10-03 12:00Z", "2026-10-04 12:00Z", "04 02:30 +11"},
		// At midnight, so that the day begins at 1:00.
		{"0 0 * * * t ?tz=Africa/Cairo", "2026-04-23 12:00Z", "2026-04-24 12:00Z", "24 01:00 +03"},
		// A day that there was not.
		{"0 9 30 12 * t ?tz=Pacific/Apia", "2011-12-29 00:00Z", "2012-01-01 00:00Z", "31 00:00 +14"},
	} {
		if got := strings.Join(runs(t, c.line, c.begin, c.end), ","); got != c.want {
			t.Errorf("%s: got %s, want %s", c.line, got, c.want)
		}
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct{ line, after, want string }{
		{"* * * * * t", "2026-01-01 00:00Z", "2026-01-01 00:01Z"},
		{"0 4 * * * t", "2026-01-01 04:00Z", "2026-01-02 04:00Z"},
		{"0 4 * * * t", "2026-01-01 03:59Z", "2026-01-01 04:00Z"},
		{"0 0 29 2 * t", "2096-02-29 00:00Z", "2104-02-29 00:00Z"},
		{"0 0 31 2 * t", "2026-01-01 00:00Z", ""},
		{"0 0 30 2 1 t", "2026-01-01 00:00Z", "2026-02-02 00:00Z"},
		{"30 2 * * * t ?tz=Europe/Paris", "2026-03-28 01:30Z", "2026-03-29 01:00Z"},
		{"0 1 1 1 * t ?tz=Pacific/Kiritimati", "2026-01-01 00:00Z", "2026-12-31 11:00Z"},
	} {
		got := parseOne(t, c.line).Next(at(t, c.after))
		if c.want == "" && got.IsZero() {
			continue
		}
		if c.want == "" || !got.Equal(at(t, c.want)) {
			t.Errorf("%s after %s: %s, want %s", c.line, c.after, got, c.want)
		}
	}
}

// Next agrees with Matches: nothing that matches is left out.
func TestNextFindsEveryMinute(t *testing.T) {
	for _, line := range []string{
		"7 */3 * * 1 t ?tz=America/Santiago", "*/20 0,23 1,15 * * t ?tz=Asia/Kathmandu", "59 23 28-31 3,10 * t ?tz=Europe/Paris",
	} {
		item := parseOne(t, line)
		var stepped, searched []time.Time
		begin, end := at(t, "2026-03-01 00:00Z"), at(t, "2026-11-15 00:00Z")
		for minute := begin; minute.Before(end); minute = minute.Add(time.Minute) {
			if item.Matches(minute) {
				stepped = append(stepped, minute)
			}
		}
		for minute := item.Next(begin.Add(-time.Minute)); minute.Before(end); minute = item.Next(minute) {
			searched = append(searched, minute)
		}
		if diff := cmp.Diff(stepped, searched); diff != "" || len(stepped) == 0 {
			t.Errorf("%s: %s", line, diff)
		}
	}
}
