package recovery

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/wait"
)

// doubtWait is the time after which a job that seems lost is checked again: its outcome may
// just have been written.
const doubtWait = time.Second

// LockWatch watches the rows of running jobs, and ends the contexts of jobs whose locks are
// gone and of jobs that were cancelled. It is used by one goroutine, except for Look and
// LookForCancelled.
type LockWatch struct {
	WorkerID string
	Interval time.Duration
	Queries  *dbgen.Queries
	Events   *eventstream.Stream
	// Running lists the jobs that run now.
	Running func() []*job.Claimed
	// Lose ends the contexts of jobs that are lost.
	Lose func(jobs []*job.Claimed, cause error)
	// Cancel ends the context of a cancelled job. It is called again with each look
	// until the run has ended.
	Cancel func(j *job.Claimed, cause error)

	now       chan struct{}
	cancelled chan struct{}
	announced atomic.Bool // since the last look for cancelled jobs
	// doubtful are the claims that seemed lost the last time.
	doubtful map[*job.Claimed]bool
}

// NewLockWatch prepares w to run.
func NewLockWatch(w *LockWatch) *LockWatch {
	w.now, w.cancelled = make(chan struct{}, 1), make(chan struct{}, 1)
	return w
}

// Look makes the next look come at once. It may be called from any goroutine.
func (w *LockWatch) Look() { wait.Wake(w.now) }

// LookForCancelled makes a look for cancelled jobs come at once: a job of this
// worker was announced as cancelled, or such an announcement may have been missed.
// It may be called from any goroutine.
func (w *LockWatch) LookForCancelled(announced bool) {
	if announced {
		w.announced.Store(true)
	}
	wait.Wake(w.cancelled)
}

// Run looks until ctx ends. Errors of the database do not end it: the claims and
// the heartbeat report them, and the next look tries again.
func (w *LockWatch) Run(ctx context.Context) {
	timer, due := time.NewTimer(w.Interval), time.Now().Add(w.Interval)
	defer timer.Stop()
	within := func(wait time.Duration) { due = time.Now().Add(wait); timer.Reset(wait) }
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.cancelled:
			// A cancellation can be announced before the claim that took the job has
			// returned: then the job is not known yet.
			announced := w.announced.Swap(false)
			if found, err := w.lookForCancelled(ctx); err != nil || announced && found == 0 {
				within(min(doubtWait, w.Interval, max(0, time.Until(due))))
			}
			continue
		case <-timer.C:
		case <-w.now:
		}
		_, err := w.lookForCancelled(ctx)
		err = errors.Join(err, w.look(ctx))
		wait := w.Interval
		if err != nil || len(w.doubtful) > 0 {
			wait = min(doubtWait, w.Interval)
		}
		within(wait)
	}
}

// lookForCancelled ends the contexts of cancelled jobs, and returns how many there are.
func (w *LockWatch) lookForCancelled(ctx context.Context) (int, error) {
	running := w.Running()
	if len(running) == 0 {
		return 0, nil
	}
	p := dbgen.CancelledJobsParams{WorkerID: w.WorkerID}
	p.Ids, p.LockedAts = claims(running)
	rows, err := w.Queries.CancelledJobs(ctx, p)
	if err != nil {
		return 0, fmt.Errorf("looking which of %d running jobs are cancelled: %w", len(running), err)
	}
	for _, row := range rows {
		w.Cancel(running[row.Place-1], job.Cancelled(row.Reason))
	}
	return len(rows), nil
}

// claims are claims as statement arguments.
func claims(jobs []*job.Claimed) (ids []int64, lockedAts []time.Time) {
	for _, j := range jobs {
		ids = append(ids, j.ID)
		lockedAts = append(lockedAts, j.Lock.At)
	}
	return ids, lockedAts
}

// look finds the jobs whose locks are gone. A job counts as lost when it seems lost twice,
// since its outcome may be written during the look.
func (w *LockWatch) look(ctx context.Context) error {
	running := w.Running()
	if len(running) == 0 {
		w.doubtful = nil
		return nil
	}
	p := dbgen.LostJobsParams{WorkerID: w.WorkerID}
	p.Ids, p.LockedAts = claims(running)
	missing, err := w.Queries.LostJobs(ctx, p)
	if err != nil {
		return fmt.Errorf("looking at the locks of %d running jobs: %w", len(running), err)
	}
	var lost []*job.Claimed
	var ids []int64
	doubtful := make(map[*job.Claimed]bool)
	for _, place := range missing {
		j := running[place-1]
		if w.doubtful[j] {
			lost, ids = append(lost, j), append(ids, j.ID)
		} else {
			doubtful[j] = true
		}
	}
	w.doubtful = doubtful
	if len(lost) > 0 {
		w.Lose(lost, ErrJobLost)
		w.Events.Emit(event.LocksLost{WorkerID: w.WorkerID, JobIDs: ids})
	}
	return nil
}
