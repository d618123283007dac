package scheduler

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/job"
)

func TestNoMoreJobsAreClaimedAheadThanTheirPayloadsHaveRoom(t *testing.T) {
	e := newDurations(Config{Handlers: map[string]Handler{"t": nil}})
	expect := func(want int, why string) {
		t.Helper()
		if room := e.capacity(time.Second, 10); room != want {
			t.Errorf("room for %d jobs and not for %d: %s", room, want, why)
		}
	}
	claim := func(payload int) {
		jobs := make([]*job.Claimed, 300)
		shared := make(json.RawMessage, payload)
		for i := range jobs {
			jobs[i] = &job.Claimed{Row: job.Row{Task: "t", Payload: shared}}
		}
		e.claimed(jobs, time.Second)
	}
	expect(10, "of jobs of which nothing is known only as many as can start")
	e.ran("t", time.Millisecond)
	claim(10)
	expect(10_000, "ten slots work them off")
	claim(1 << 20)
	expect(payloadCapacity>>20, "their payloads are bounded")
	claim(100 << 20)
	expect(10, "the slots are never short of jobs")
}
