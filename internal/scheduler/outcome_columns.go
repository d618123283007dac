package scheduler

import (
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
)

// Outcomes as arguments of the statements that write them, of locked jobs and of held ones.

// columns are what the statements have in common.
type columns struct {
	ids      []int64
	attempts []int32
	delays   []float64 // seconds
	payloads []string  // "" keeps the job's
}

func newColumns(runs []runResult) columns {
	c := columns{ids: idsOf(runs), attempts: make([]int32, len(runs))}
	for i, e := range runs {
		c.attempts[i] = int32(e.job.Lock.Attempt)
	}
	return c
}

// returnColumns are of jobs that go back.
func returnColumns(runs []runResult) columns {
	c := newColumns(runs)
	c.delays, c.payloads = make([]float64, len(runs)), make([]string, len(runs))
	for i, e := range runs {
		c.delays[i], c.payloads[i] = delay(e.outcome, 0), e.text(string(e.outcome.Payload))
	}
	return c
}

// failedColumns are of jobs that have failed.
type failedColumns struct {
	columns
	errors         []string
	finals, capped []bool
}

func failColumns(runs []runResult) failedColumns {
	c := failedColumns{
		columns: returnColumns(runs), errors: make([]string, len(runs)),
		finals: make([]bool, len(runs)), capped: make([]bool, len(runs)),
	}
	for i, e := range runs {
		c.delays[i], c.errors[i] = delay(e.outcome, sharedBackoff), e.text(errorText(e.outcome.Err))
		c.finals[i], c.capped[i] = e.outcome.Permanent, e.outcome.Capped
	}
	return c
}

// lockedAts are the times that their locks name.
func lockedAts(runs []runResult) []time.Time {
	at := make([]time.Time, len(runs))
	for i, e := range runs {
		at[i] = e.job.Lock.At
	}
	return at
}

func idsOf(runs []runResult) []int64 {
	ids := make([]int64, len(runs))
	for i, e := range runs {
		ids[i] = e.job.ID
	}
	return ids
}

// text is a text as it is stored.
func (e runResult) text(s string) string {
	if e.plain {
		return contain.ASCII(s)
	}
	return s
}

// sharedBackoff is how FailJobs is asked for the formula that all runtimes share.
const sharedBackoff = -1

// delay is an outcome's wait in seconds.
func delay(o job.Outcome, without float64) float64 {
	if o.Delay == nil {
		return without
	}
	return max(0, o.Delay.Seconds())
}

// timeOf is the present time for statements: nil for the database's own.
func timeOf(now func() time.Time) *time.Time {
	if now == nil {
		return nil
	}
	return new(now())
}

// errorText is an error as PostgreSQL can store it.
func errorText(err error) string {
	if err == nil {
		return "the job failed without an error"
	}
	return contain.LongText(err)
}
