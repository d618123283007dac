package doctor_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/doctor"
)

func TestFormat(t *testing.T) {
	for d, want := range map[time.Duration]string{
		123456 * time.Nanosecond: "120µs", 250 * time.Millisecond: "250ms", 1234 * time.Millisecond: "1.2s", -90 * time.Second: "1 min 30 s",
		59960 * time.Millisecond: "1 min", 119999 * time.Millisecond: "2 min",
		time.Hour: "1 h", 25*time.Hour + 10*time.Minute: "1 d 1 h", 400 * 24 * time.Hour: "400 d",
	} {
		if got := doctor.Age(d); got != want {
			t.Errorf("%v is %q, want %q", time.Duration(d).Seconds(), got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 jobs", 1: "1 job", 999: "999 jobs", 1000: "1,000 jobs", 1234567: "1,234,567 jobs"} {
		if got := doctor.Count(n, "job"); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestSeveritiesAsText(t *testing.T) {
	for _, s := range []doctor.Severity{doctor.OK, doctor.Note, doctor.Warning, doctor.Problem} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back doctor.Severity
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%s became %s, %v", s, back, err)
		}
	}
	if _, err := doctor.Severity(9).MarshalText(); err == nil {
		t.Error("a severity that does not exist has a text")
	}
	var s doctor.Severity
	if err := s.UnmarshalText([]byte("bad")); err == nil {
		t.Error(`"bad" is a severity`)
	}
}
