package scheduler

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// A handler may wait for the row of its own job: it inserts what refers to it, updates
// it, or adds a job with its key. If the job is held, that takes until the end of the
// held claim, or fails because of a time-out. Jobs of such a task are locked and not
// held, for a while: another session may have waited, or it was a rare case.
//
// A run that has completed in its held claim did not wait. A task of which the latest
// runs to end all ended together with the end of their claims is suspect, and so is one
// of which none has ended yet. When a claim ends before a run of a suspect task, the
// database is asked, in the same round trip, whether a session waits for the job's row.
// Where the role may not ask, a few further runs like these are enough.
type waits struct {
	// together is how many runs have ended together with the end of their claims since
	// the last that showed that it did not wait.
	together atomic.Int32
	until    atomic.Pointer[time.Time] // the task's jobs are locked until then; nil: never
	times    atomic.Int32              // how often that was found
}

const (
	// suspectAfter is how many such runs make a task suspect, and lockedAfter how many
	// are enough where the database cannot be asked.
	suspectAfter = 2
	lockedAfter  = suspectAfter + 3
	// shortest is how long a run takes at least that has waited.
	shortest = 2 * time.Millisecond
	// lockedFor is how long the task's jobs are not held, for the first time. It doubles
	// with each further time, so often at most.
	lockedFor   = 5 * time.Minute
	mostDoubled = 8
)

func (w *waits) suspect() bool { return w.together.Load() >= suspectAfter }

func (w *waits) locked() bool {
	until := w.until.Load()
	return until != nil && time.Now().Before(*until)
}

// found notes that the task's handler waits for its own jobs' rows.
func (w *waits) found(now time.Time) {
	until := now.Add(lockedFor << min(w.times.Load(), mostDoubled))
	if before := w.until.Load(); before != nil && now.Before(*before) {
		return // by a run that had begun before
	}
	w.times.Add(1)
	w.until.Store(&until)
	w.together.Store(suspectAfter) // the first that is held then is asked about
}

// lock keeps the jobs of a task from being held for a while.
func (d *durations) lock(task string) {
	if t := d.tasks[task]; t != nil {
		t.waits.found(time.Now())
	}
}

// ended learns from the end of a run whether it may have waited for the end of its held
// claim. The caller holds the pool's lock.
func (w *waits) ended(a *active, e completer.Result, h *heldClaims) {
	if a.asked || a.claim == nil && a.spilled.IsZero() {
		return
	}
	if a.claim != nil && a.claim.state == claimOpen {
		switch {
		case a.prelocked:
		case e.Outcome.Kind != job.Failed:
			if w.together.Load() != 0 {
				w.together.Store(0)
			}
		case lockRefused(e.Outcome.Err) || w.suspect() && timedOut(e.Outcome.Err):
			w.found(time.Now())
		}
		return
	}
	if e.Duration < shortest || a.claim == nil && time.Since(a.spilled) > e.Duration/3 {
		return // it was busy for most of its time, or goes on to be
	}
	if w.together.Add(1) >= lockedAfter && h.blind.Load() {
		w.found(time.Now())
	}
}

// lockRefused reports whether a handler would not wait for a lock, or no longer.
func lockRefused(err error) bool {
	refusal, ok := contain.As[*pgconn.PgError](err)
	return ok && refusal.Code == pgerrcode.LockNotAvailable
}

// timedOut reports whether a handler may have failed as a statement took too long.
func timedOut(err error) bool {
	refusal, ok := contain.As[*pgconn.PgError](err)
	return ok && refusal.Code == pgerrcode.QueryCanceled || errors.Is(err, context.DeadlineExceeded) || contain.Is(err, completer.ErrTimeout)
}

// suspects are those of runs that go on after the end of their claim which may wait for
// it. If nobody does, they say nothing more of their task.
func (h *heldClaims) suspects(runs []*active) (ids []int64) {
	if h.blind.Load() {
		return nil
	}
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	for _, a := range runs {
		if t := h.durations.tasks[a.job.Task]; t != nil && a.started && !t.never.Load() && t.waits.suspect() && !t.waits.locked() {
			a.asked = true
			ids = append(ids, a.job.ID)
			t.waits.together.Store(suspectAfter - 1)
		}
	}
	return ids
}

// learnToAsk finds out, while nothing is held, whether the database tells who waits.
func (cc *claimConn) learnToAsk(ctx context.Context) {
	may, err := cc.h.config.Statements.On(cc.conn).MaySeeLocks(ctx)
	cc.h.blind.Store(err != nil || !may)
}
