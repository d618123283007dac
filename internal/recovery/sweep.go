package recovery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// SweepOptions say which workers are declared dead and what becomes of their jobs.
type SweepOptions struct {
	// StaleAfter is the silence after which a worker is declared dead.
	StaleAfter time.Duration
	// Delay is how long recovered jobs wait before they can run again.
	Delay time.Duration
	// ResilientFlags mark jobs whose workers get more time: ResilientMultiplier times
	// StaleAfter.
	ResilientFlags      []string
	ResilientMultiplier float64
	// NodeLocksOlderThan, if not 0, takes jobs from Node's workers whose locks are
	// older. Node's workers have no heartbeat, so such a job may still be running.
	NodeLocksOlderThan time.Duration
	// Self is a worker that is never declared dead.
	Self string
	// Watched, if not nil, is called once the heartbeats were read. here is for how long
	// this process has observed the database without an outage, and unbroken for how long
	// there was none as far as it knows, which is longer if it has just started. nil means
	// that heartbeats alone decide.
	Watched func() (here, unbroken time.Duration)
	// Decide, if not nil, is asked about each job of the tasks in DecideTasks; nil is
	// of all tasks.
	Decide      func(context.Context, Job) Decision
	DecideTasks []string
	// DryRun changes nothing.
	DryRun bool
	// Record says that recovered jobs are events of history, where there is one.
	Record bool
}

// SweepResult is what a sweep did, or would do.
type SweepResult struct {
	// Busy says that another process was sweeping, and this one did nothing.
	Busy bool
	// Workers are those that were declared dead.
	Workers []SweptWorker
}

// SweptWorker is a worker that was declared dead.
type SweptWorker struct {
	ID string
	// Registered says that its heartbeat is overdue; otherwise it was not registered
	// and has old locks.
	Registered bool
	// Silence is the time since its heartbeat, or the age of its oldest lock.
	Silence time.Duration
	Jobs    []SweptJob
}

// SweptJob is a job of such a worker.
type SweptJob struct {
	Job
	Action Action
	// GivenUp says that the job stays failed although Action would try it again: it has
	// been started MaxAttempts times, or it has neither a key nor an attempt left, like a
	// job that was replaced or removed while it ran.
	GivenUp bool
	// Refused, if not nil, is the database's error: a constraint or a trigger refuses to
	// give the job back, so it stays with the dead worker, and the next sweep tries again.
	Refused error
}

// Sweep puts the jobs of dead workers back into the queue, in one transaction. Rows whose
// change the database refuses are left out, and reported by events.
func Sweep(
	ctx context.Context, pool *pgxpool.Pool, statements *statement.Set, events *eventstream.Stream, o SweepOptions,
) (SweepResult, error) {
	s := &sweep{SweepOptions: o, events: events, statements: statements}
	result, err := s.inTransaction(ctx, pool)
	if s.deferred {
		// A constraint that is checked at the commit refuses some row.
		result, err = s.inTransaction(ctx, pool)
	}
	if err != nil {
		return SweepResult{}, fmt.Errorf("sweeping for dead workers: %w", err)
	}
	if o.DryRun {
		return result, nil
	}
	for _, w := range result.Workers {
		e := event.WorkerRecovered{WorkerID: o.Self, Dead: w.ID, Silence: w.Silence}
		for _, j := range w.Jobs {
			switch {
			case j.Refused != nil:
				e.Refused = append(e.Refused, j.ID)
			case j.Action == Skip:
				e.Skipped = append(e.Skipped, j.ID)
			case j.GivenUp || j.Cancelled:
				e.GivenUp = append(e.GivenUp, j.ID)
			default:
				e.JobIDs = append(e.JobIDs, j.ID)
			}
		}
		if w.Registered && len(e.Refused) == 0 || len(e.JobIDs)+len(e.GivenUp) > 0 {
			events.Emit(e)
		}
	}
	for _, e := range s.refusals {
		events.Emit(e)
	}
	return result, nil
}

type sweep struct {
	SweepOptions
	events     *eventstream.Stream
	statements *statement.Set
	tx         pgx.Tx
	refusals   []event.SweepFailed // to be emitted after the commit
	escaped    int                 // how many texts the encoding did not hold
	deferred   bool                // deferred constraints are checked with each part
}

func (s *sweep) inTransaction(ctx context.Context, pool *pgxpool.Pool) (result SweepResult, err error) {
	var commit bool
	err = s.statements.Transaction(ctx, pool, func(tx pgx.Tx) (bool, error) {
		s.tx, s.refusals, s.escaped = tx, nil, 0
		result, err = s.run(ctx, s.statements.On(tx))
		commit = err == nil && !result.Busy && !s.DryRun
		return commit, err
	})
	if err != nil {
		s.deferred = commit && refusal(err)
		return SweepResult{}, err
	}
	return result, nil
}

func (s *sweep) run(ctx context.Context, q *dbgen.Queries) (SweepResult, error) {
	held, err := q.TrySweepLock(ctx)
	if err != nil || !held {
		return SweepResult{Busy: err == nil}, err
	}
	dead, err := s.deadWorkers(ctx, q)
	if err != nil || len(dead) == 0 {
		return SweepResult{}, err
	}
	rows, err := lockedJobs(ctx, q, dead)
	if err != nil {
		return SweepResult{}, err
	}
	if dead, err = s.stillDead(ctx, q, dead); err != nil {
		return SweepResult{}, err
	}
	result := SweepResult{Workers: make([]SweptWorker, len(dead))}
	var taken []decided
	for i, w := range dead {
		result.Workers[i] = SweptWorker{ID: w.id, Registered: w.registered, Silence: w.silence}
		for _, j := range rows[w.id] {
			silence := w.silence
			if !w.registered {
				silence = j.LockedFor
			}
			d := s.decide(ctx, j, silence)
			result.Workers[i].Jobs = append(result.Workers[i].Jobs, SweptJob{Job: j, Action: d.Action, GivenUp: d.givenUp})
			if d.Action != Skip {
				taken = append(taken, d)
			}
		}
	}
	if s.DryRun {
		return result, nil
	}
	refused, err := s.take(ctx, dead, taken)
	if err != nil {
		return SweepResult{}, err
	}
	for i := range result.Workers {
		for k := range result.Workers[i].Jobs {
			j := &result.Workers[i].Jobs[k]
			j.Refused = refused[j.ID]
		}
	}
	if err := s.record(ctx, q, result); err != nil {
		return SweepResult{}, err
	}
	return result, s.forget(ctx, dead)
}

// lockedJobs are the jobs of dead workers, by worker.
func lockedJobs(ctx context.Context, q *dbgen.Queries, dead []deadWorker) (map[string][]Job, error) {
	var p dbgen.JobsLockedByParams
	for _, w := range dead {
		p.Holders = append(p.Holders, w.id)
		p.Bounds = append(p.Bounds, w.bound.Seconds())
		p.Registered = append(p.Registered, w.registered)
	}
	rows, err := q.JobsLockedBy(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("looking for the jobs of dead workers: %w", err)
	}
	jobs := make(map[string][]Job, len(dead))
	for _, row := range rows {
		jobs[row.Holder] = append(jobs[row.Holder], Job{
			ID: row.ID, Task: row.Task, Queue: row.Queue, Key: row.Key, WorkerID: row.Holder,
			LockedAt: row.LockedAt.Time, LockedFor: elapsed.Seconds(row.LockedFor), RunAt: row.RunAt.Time,
			Attempts: int(row.Attempts), MaxAttempts: int(row.MaxAttempts),
			LastError: row.LastError, Flags: job.FlagNames(row.Flags), Recoveries: recoveries(row.LastError),
			Cancelled: row.Cancelled,
		})
	}
	return jobs, nil
}

// take recovers the jobs, except those that the database refuses to change, and returns its
// errors for these.
func (s *sweep) take(ctx context.Context, dead []deadWorker, taken []decided) (refused map[int64]error, err error) {
	refused = make(map[int64]error)
	err = salvage(taken, func(some []decided) error {
		p := adjustments(some)
		err := s.apart(ctx, func(q *dbgen.Queries) error { return s.recover(ctx, q, dead, p) })
		// Only texts that cannot be stored are escaped, unless finding them takes too long.
		if !retry.Unencodable(err) || len(some) > 1 && s.escaped < mostRefusals {
			return err
		}
		s.escaped++
		return s.apart(ctx, func(q *dbgen.Queries) error { return s.recover(ctx, q, dead, inASCII(p)) })
	}, func(d decided, err error) {
		refused[d.job.ID] = err
		s.refuse(event.SweepFailed{JobID: d.job.ID, Err: fmt.Errorf("giving job %d back: %w", d.job.ID, err)})
	})
	if err != nil {
		return nil, err
	}
	if n := len(taken) - len(refused); n > 0 {
		if err := s.statements.On(s.tx).AnnounceJobs(ctx, int32(n)); err != nil {
			return nil, fmt.Errorf("announcing %d recovered jobs: %w", n, err)
		}
	}
	return refused, nil
}

// refuse notes an event for after the commit. Rows that are only put off get none.
func (s *sweep) refuse(e event.SweepFailed) {
	if !errors.Is(e.Err, errPutOff) {
		e.WorkerID = s.Self
		s.refusals = append(s.refusals, e)
	}
}

// recover recovers jobs. The schema's function selects them by the holder of their locks, so
// the sweep becomes the holder first.
func (s *sweep) recover(
	ctx context.Context, q *dbgen.Queries, dead []deadWorker, jobs dbgen.AdjustRecoveredJobsParams,
) error {
	p := dbgen.PassToSweepParams{SweepID: "gworker_sweep_" + strings.ToLower(rand.Text()), Ids: jobs.Ids}
	for _, w := range dead {
		p.Holders = append(p.Holders, w.id)
	}
	if err := q.PassToSweep(ctx, p); err != nil {
		return fmt.Errorf("taking %d jobs from dead workers: %w", len(p.Ids), err)
	}
	n, err := q.RecoverJobs(ctx, dbgen.RecoverJobsParams{SweepID: p.SweepID, Delay: s.Delay.Seconds()})
	if err != nil {
		return fmt.Errorf("recovering %d jobs: %w", len(p.Ids), err)
	}
	if int(n) != len(p.Ids) {
		return fmt.Errorf("recovering %d jobs: the schema's function recovered %d: %w", len(p.Ids), n, errKept)
	}
	if err := q.AdjustRecoveredJobs(ctx, jobs); err != nil {
		return fmt.Errorf("writing what becomes of %d recovered jobs: %w", len(p.Ids), err)
	}
	return nil
}

// forget unlocks the queues of the dead workers and removes their registrations. A worker
// that still has the lock of a job stays registered, for the next sweep.
func (s *sweep) forget(ctx context.Context, dead []deadWorker) error {
	var holders, registered []string
	for _, w := range dead {
		if w.queues {
			holders = append(holders, w.id)
		}
		if w.registered {
			registered = append(registered, w.id)
		}
	}
	err := salvage(holders, func(ids []string) error {
		return s.apart(ctx, func(q *dbgen.Queries) error { _, err := q.UnlockQueuesWithoutJob(ctx, ids); return err })
	}, func(id string, err error) {
		s.refuse(event.SweepFailed{Err: fmt.Errorf("unlocking the queues of dead worker %q: %w", id, err)})
	})
	if err != nil {
		return fmt.Errorf("unlocking the queues of dead workers: %w", err)
	}
	err = salvage(registered, func(ids []string) error {
		return s.apart(ctx, func(q *dbgen.Queries) error { _, err := q.ForgetWorkers(ctx, ids); return err })
	}, func(id string, err error) {
		s.refuse(event.SweepFailed{Err: fmt.Errorf("removing the registration of dead worker %q: %w", id, err)})
	})
	if err != nil {
		return fmt.Errorf("removing the registrations of dead workers: %w", err)
	}
	return nil
}
