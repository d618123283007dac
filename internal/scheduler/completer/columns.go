package completer

import (
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
)

// Outcomes as arguments of the statements that write them, of locked jobs and of held ones.

// Columns are what the statements have in common.
type Columns struct {
	IDs      []int64
	Attempts []int32
	Delays   []float64 // seconds
	Payloads []string  // "" keeps the job's
}

func newColumns(runs []Result) Columns {
	c := Columns{IDs: IDs(runs), Attempts: make([]int32, len(runs))}
	for i, e := range runs {
		c.Attempts[i] = int32(e.Job.Lock.Attempt)
	}
	return c
}

// ReturnColumns are of jobs that go back.
func ReturnColumns(runs []Result) Columns {
	c := newColumns(runs)
	c.Delays, c.Payloads = make([]float64, len(runs)), make([]string, len(runs))
	for i, e := range runs {
		c.Delays[i], c.Payloads[i] = Delay(e.Outcome, 0), e.text(string(e.Outcome.Payload))
	}
	return c
}

// FailedColumns are what FailColumns returns.
type FailedColumns struct {
	Columns
	Errors         []string
	Finals, Capped []bool
}

// FailColumns are the columns of jobs that have failed.
func FailColumns(runs []Result) FailedColumns {
	c := FailedColumns{
		Columns: ReturnColumns(runs), Errors: make([]string, len(runs)),
		Finals: make([]bool, len(runs)), Capped: make([]bool, len(runs)),
	}
	for i, e := range runs {
		c.Delays[i], c.Errors[i] = Delay(e.Outcome, sharedBackoff), e.text(errorText(e.Outcome.Err))
		c.Finals[i], c.Capped[i] = e.Outcome.Permanent, e.Outcome.Capped
	}
	return c
}

// lockedAts are the times that their locks name.
func lockedAts(runs []Result) []time.Time {
	at := make([]time.Time, len(runs))
	for i, e := range runs {
		at[i] = e.Job.Lock.At
	}
	return at
}

// IDs are the ids of the jobs, in their order.
func IDs(runs []Result) []int64 {
	ids := make([]int64, len(runs))
	for i, e := range runs {
		ids[i] = e.Job.ID
	}
	return ids
}

// text is a text as it is stored.
func (e Result) text(s string) string {
	if e.plain {
		return contain.ASCII(s)
	}
	return s
}

// sharedBackoff is how FailJobs is asked for the formula that all runtimes share.
const sharedBackoff = -1

// Delay is an outcome's wait in seconds.
func Delay(o job.Outcome, without float64) float64 {
	if o.Delay == nil {
		return without
	}
	return max(0, o.Delay.Seconds())
}

// TimeOf is the present time for statements: null for the database's own.
func TimeOf(now func() time.Time) *time.Time {
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
