package event_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
)

type panics struct{}

func (panics) String() string { panic("again") }

// What an event's log line depends on.
func TestLines(t *testing.T) {
	j := &event.Job{ID: 7, Task: "send", Attempts: 2, MaxAttempts: 5}
	queued := &event.Job{ID: 7, Task: "send", Attempts: 2, MaxAttempts: 5, Queue: "q"}
	const named = "job_id=7 task=send attempt=2 max_attempts=5"
	no := errors.New("no")
	for _, c := range []struct {
		event event.Event
		want  string // the level, the message and the attributes
	}{
		{event.JobStarted{Job: j}, "DEBUG job started " + named},
		{event.JobStarted{Job: queued}, "DEBUG job started " + named + " queue=q"},
		{event.JobStarted{}, "DEBUG job started"},
		{event.JobEnded{Job: j, Result: event.RunLost, Duration: time.Second}, "DEBUG handler returned " + named + " result=lost duration_ms=1000"},
		{event.JobCompleted{Job: j, Duration: 1500 * time.Microsecond}, "INFO job completed " + named + " duration_ms=1.5"},
		{event.JobPermanentlyFailed{Job: j, Err: no}, "ERROR job failed permanently " + named + " duration_ms=0 err=no"},
		{event.JobSnoozed{Job: j, For: time.Second, Err: no}, "INFO job snoozed " + named + " duration_ms=0 for=1s"},
		{event.JobSnoozed{Job: j, For: time.Second, Reason: "busy"}, "INFO job snoozed " + named + " duration_ms=0 for=1s reason=busy"},
		{event.JobInterrupted{Job: j, Cause: no}, "DEBUG ended the context of a running job " + named + " cause=no"},
		{event.JobInterrupted{Job: j, Cause: job.Cancelled("no")}, "WARN ended the context of a running job " + named + " cause=the job was cancelled: no"},
		{event.TaskOutput{Job: j, Line: "a line"}, "INFO a line " + named},
		{event.TaskOutput{Job: j, Line: "a line", IsError: true}, "ERROR a line " + named},
		{event.OldLocksReset{}, "DEBUG reset locks older than 4 hours job_ids=[] queues=[]"},
		{event.OldLocksReset{JobIDs: []int64{7}}, "WARN reset locks older than 4 hours job_ids=[7] queues=[]"},
		{event.SweepFailed{JobID: 7, Err: no}, "ERROR the database refuses to unlock a job; trying again with the next look job_id=7 err=no"},
		{event.DatabaseUnreachable{Err: no, ReadOnly: true}, "WARN the database takes no writes yet; trying again err=no retry_in=0s"},
		{event.ObserverPanicked{Value: panics{}, On: event.JobStarted{}}, "ERROR an observer panicked value=%!v(PANIC=String method: again) stack="},
	} {
		message, attrs := event.Line(c.event)
		got := event.Level(c.event).String() + " " + message
		for _, a := range attrs {
			if !a.Equal(slog.Attr{}) {
				got += fmt.Sprintf(" %s=%v", a.Key, a.Value)
			}
		}
		if strings.TrimSpace(got) != c.want {
			t.Errorf("%T: %q, want %q", c.event, got, c.want)
		}
	}
}
