package recovery

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/dbgen"
)

// interrupted is what the shared schema's own function writes as last_error.
const interrupted = "Job recovered after worker interruption"

var countedRecoveries = regexp.MustCompile(`^` + interrupted + `(?: \((\d+) )?`)

// Recovered reports whether a job's last_error says that the job's worker has died.
func Recovered(lastError string) bool { return strings.HasPrefix(lastError, interrupted) }

// recoveries reads the count of recoveries in a row from a last_error. One that
// another runtime wrote counts once.
func recoveries(lastError string) int {
	match := countedRecoveries.FindStringSubmatch(lastError)
	if match == nil {
		return 0
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		return 1
	}
	return n
}

func recoveredText(n int) string {
	times := "times"
	if n == 1 {
		times = "time"
	}
	return fmt.Sprintf("%s (%d %s in a row)", interrupted, n, times)
}

// decided is what a sweep does with one job.
type decided struct {
	job Job
	Decision
	givenUp bool // it is not tried again, whatever the decision says
}

// decide asks the interceptor about a job, and skips jobs whose flags ask for more
// patience.
func (s *sweep) decide(ctx context.Context, j Job, silence time.Duration) decided {
	patience := time.Duration(float64(s.StaleAfter) * s.ResilientMultiplier)
	if silence < patience && slices.ContainsFunc(j.Flags, func(f string) bool { return slices.Contains(s.ResilientFlags, f) }) {
		return decided{job: j, Decision: Decision{Action: Skip}}
	}
	if j.Cancelled {
		return decided{job: j, Decision: Decision{Action: Fail, Reason: j.LastError}}
	}
	d := decided{job: j, Decision: s.ask(ctx, j)}
	switch d.Action {
	case Recover:
		d.givenUp = j.retired() || j.starts() >= j.MaxAttempts
	case Reschedule:
		d.givenUp = j.retired()
	case Fail, Skip: // as the interceptor says
	}
	return d
}

// ask calls the interceptor. A panic is reported, and the job is recovered. Values that
// cannot be stored are brought within bounds, since one of them would fail every sweep.
func (s *sweep) ask(ctx context.Context, j Job) (d Decision) {
	if s.Decide == nil || s.DecideTasks != nil && !slices.Contains(s.DecideTasks, j.Task) {
		return Decision{}
	}
	if err := contain.Call(func() { d = s.Decide(ctx, j) }); err != nil {
		value, stack := contain.Cause(err)
		s.events.Emit(event.ObserverPanicked{Value: value, Stack: stack})
		return Decision{}
	}
	if d.Action > Skip {
		d.Action = Recover
	}
	d.Attempts = min(max(d.Attempts, 0), math.MaxInt16)
	if !d.RunAt.IsZero() && d.RunAt.Before(earliest) {
		d.RunAt = earliest
	}
	if d.RunAt.After(latest) {
		d.RunAt = latest
	}
	d.Reason = contain.Bounded(d.Reason)
	return d
}

// earliest and latest bound a RunAt, as they do for jobs that are added.
var (
	earliest = time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// adjustments are what the schema's recovery function does not do, or does differently
// from one revision to the next. Every job is in them: whether it is tried again is decided
// here, and the function only unlocks it.
func adjustments(all []decided) dbgen.AdjustRecoveredJobsParams {
	var p dbgen.AdjustRecoveredJobsParams
	for _, d := range all {
		attempts, runAt, backoff, text := max(0, d.job.Attempts-1), pgtype.Timestamptz{}, false, recoveredText(d.job.Recoveries+1)
		switch {
		case d.givenUp:
			attempts = max(d.job.Attempts, d.job.MaxAttempts)
			text += "; not tried again: " + whyGivenUp(d.job)
		case d.Action == Reschedule:
			attempts, runAt.Valid, runAt.Time = d.Attempts, !d.RunAt.IsZero(), d.RunAt
			text = reason(d)
		case d.Action == Fail:
			attempts, backoff, text = d.job.Attempts, true, reason(d)
		}
		p.Ids = append(p.Ids, d.job.ID)
		p.Attempts = append(p.Attempts, int32(attempts))
		p.RunAts = append(p.RunAts, runAt)
		p.Backoffs = append(p.Backoffs, backoff)
		p.Errors = append(p.Errors, text)
		p.Cancelled = append(p.Cancelled, d.job.Cancelled)
	}
	return p
}

func whyGivenUp(j Job) string {
	if j.retired() {
		return "that was its last attempt, or it was replaced or removed meanwhile"
	}
	return fmt.Sprintf("it has started %d times, and may be what ends its workers", j.starts())
}

func reason(d decided) string {
	if d.Reason != "" {
		return d.Reason
	}
	return recoveredText(d.job.Recoveries + 1)
}
