package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// doubtWait is the time after which a job that seems lost is looked at again:
// its end may just have been written.
const doubtWait = time.Second

// Locks looks after the locks of running jobs, and ends the contexts of those
// whose locks are gone. It is used by one goroutine, but for Look.
type Locks struct {
	WorkerID string
	Interval time.Duration
	Queries  *dbgen.Queries
	Events   *event.Stream
	// Running lists the jobs that run now.
	Running func() []*job.Claimed
	// Lose ends the contexts of jobs that are lost.
	Lose func(jobs []*job.Claimed, cause error)

	now chan struct{}
	// doubtful are the claims that seemed lost the last time.
	doubtful map[*job.Claimed]bool
}

// NewLocks prepares what l needs to run.
func NewLocks(l Locks) *Locks {
	l.now = make(chan struct{}, 1)
	return &l
}

// Look makes the next look come at once. It may be called from any goroutine.
func (l *Locks) Look() {
	select {
	case l.now <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends. Errors of the database do not end it: the claims and
// the heartbeat report them, and the next look tries again.
func (l *Locks) Run(ctx context.Context) {
	timer := time.NewTimer(l.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.now:
		}
		wait := l.Interval
		if err := l.look(ctx); err != nil || len(l.doubtful) > 0 {
			wait = min(doubtWait, l.Interval)
		}
		timer.Reset(wait)
	}
}

// look finds the jobs whose locks are gone. A job counts as lost when it seems
// so twice, for its end may be written just as it is looked for.
func (l *Locks) look(ctx context.Context) error {
	running := l.Running()
	if len(running) == 0 {
		l.doubtful = nil
		return nil
	}
	p := dbgen.LostJobsParams{WorkerID: l.WorkerID}
	for _, j := range running {
		p.Ids = append(p.Ids, j.ID)
		p.LockedAts = append(p.LockedAts, pgtype.Timestamptz{Time: j.Lock.At, Valid: true})
	}
	missing, err := l.Queries.LostJobs(ctx, p)
	if err != nil {
		return fmt.Errorf("looking at the locks of %d running jobs: %w", len(running), err)
	}
	var lost []*job.Claimed
	var ids []int64
	doubtful := make(map[*job.Claimed]bool)
	for _, place := range missing {
		j := running[place-1]
		if l.doubtful[j] {
			lost, ids = append(lost, j), append(ids, j.ID)
		} else {
			doubtful[j] = true
		}
	}
	l.doubtful = doubtful
	if len(lost) > 0 {
		l.Lose(lost, ErrJobLost)
		l.Events.Emit(event.LocksLost{WorkerID: l.WorkerID, JobIDs: ids})
	}
	return nil
}
