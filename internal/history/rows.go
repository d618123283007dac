package history

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/dbgen"
)

// errCap is why events of a retry storm are dropped.
var errCap = errors.New("more events a second of one task than the cap")

// maxError is how much of an error is kept, in bytes.
const maxError = 8 << 10

// A Run is one that did not complete.
type Run struct {
	JobID   int64
	Task    string
	Attempt int
	Waited  time.Duration
	Ran     time.Duration
	// Kind is a kind of events for a run that is tried again.
	Kind string
	// Error is the text that is stored as the job's last error, or another reason.
	Error string
	// Details are a JSON object, or "".
	Details string
}

// Rows are the events of runs, as arguments of RecordRuns. It is nil if there is nothing to
// record. changed says that the transaction has changed the rows of the jobs.
func (r *Recorder) Rows(runs []Run, changed bool) *dbgen.RecordRunsParams {
	if r == nil || !r.on.Load() || len(runs) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	p := &dbgen.RecordRunsParams{WorkerID: r.WorkerID, Changed: changed}
	for _, run := range runs {
		if r.level(run.Task) == Off || !r.takes(run.Task, now) {
			continue
		}
		p.Kinds = append(p.Kinds, run.Kind)
		p.Ids = append(p.Ids, run.JobID)
		p.Tasks = append(p.Tasks, run.Task)
		p.Attempts = append(p.Attempts, int32(run.Attempt))
		p.Waits = append(p.Waits, milliseconds(run.Waited))
		p.Runs = append(p.Runs, milliseconds(run.Ran))
		p.Errors = append(p.Errors, cut(run.Error))
		p.Details = append(p.Details, run.Details)
	}
	if len(p.Ids) == 0 {
		return nil
	}
	return p
}

// Answered notes the answer to RecordRuns about so many events.
func (r *Recorder) Answered(count int, problem string) {
	if problem != "" {
		r.Dropped(count, fmt.Errorf("the database did not record them: %s", problem))
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cut is the beginning of a text.
func cut(text string) string {
	if len(text) <= maxError {
		return text
	}
	text = text[:maxError]
	for len(text) > 0 {
		if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
			break
		}
		text = text[:len(text)-1]
	}
	return text
}
