package scheduler_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/testdb"
)

// TestHandlersThatWaitForTheirOwnRows: after few runs such jobs have their locks when
// they start, while quick ones of other tasks are held.
func TestHandlersThatWaitForTheirOwnRows(t *testing.T) {
	var sample testdb.Sample
	const update = "update graphile_worker._private_jobs set payload = payload where id = $1"
	for name, waits := range map[string]func(context.Context, *fixture, int64) error{
		"foreign key": func(ctx context.Context, f *fixture, id int64) error {
			_, err := f.pool.Exec(ctx, "insert into refers values ($1)", id)
			return err
		},
		"update": func(ctx context.Context, f *fixture, id int64) error {
			_, err := f.pool.Exec(ctx, update, id)
			return err
		},
		"update, and then other work": func(ctx context.Context, f *fixture, id int64) error {
			_, err := f.pool.Exec(ctx, update, id)
			time.Sleep(20 * time.Millisecond)
			return err
		},
		"add_job with its key": func(ctx context.Context, f *fixture, _ int64) error {
			_, err := f.pool.Exec(ctx, "select graphile_worker.add_job('waits', job_key => 'k', run_at => now() + interval '1 hour')")
			return err
		},
		"in a transaction": func(ctx context.Context, f *fixture, id int64) error {
			tx, err := f.pool.Begin(ctx)
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx)
			if _, err := tx.Exec(ctx, "select from graphile_worker._private_jobs where id = $1 for share", id); err != nil {
				return err
			}
			if _, err = tx.Exec(ctx, "select pg_sleep(0.001)"); err != nil {
				return err
			}
			return tx.Commit(ctx)
		},
		"without patience": func(ctx context.Context, f *fixture, id int64) error {
			_, err := f.pool.Exec(ctx, "select from graphile_worker._private_jobs where id = $1 for update nowait", id)
			return err
		},
		"lock time-out": func(ctx context.Context, f *fixture, id int64) error {
			_, err := f.pool.Exec(ctx, fmt.Sprintf("do $$ begin set local lock_timeout = '5ms'; perform from graphile_worker._private_jobs where id = %d for update; end $$", id))
			return err
		},
		"time-out": func(ctx context.Context, f *fixture, id int64) error {
			ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			conn, err := f.pool.Acquire(context.WithoutCancel(ctx))
			if err != nil {
				return err
			}
			defer conn.Release()
			_, err = conn.Exec(ctx, update, id)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, nil)
			f.exec(t, "create table refers (id bigint references graphile_worker._private_jobs on delete cascade)")
			hold := 300 * time.Millisecond // time for the statement to wait, on a busy machine
			if name == "time-out" {
				hold = 3 * time.Second // its end is not what the handler waits for
			}
			held, _ := f.heldRuns(t, hold, func(ctx context.Context, _ *scheduler.Scheduler, id int64) error {
				return waits(ctx, f, id)
			})
			if held == 0 || held > 20 {
				t.Errorf("%d runs were held", held)
			}
		})
	}
}

// TestHandlersThatWaitForTheirOwnRowsUnseen: the role may not see who waits for rows.
func TestHandlersThatWaitForTheirOwnRowsUnseen(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.exec(t, `revoke select on pg_catalog.pg_locks from public;
		grant usage on schema graphile_worker to pg_monitor;
		grant all on all tables in schema graphile_worker to pg_monitor;
		grant all on all functions in schema graphile_worker to pg_monitor;
		create policy all_jobs on graphile_worker._private_jobs to pg_monitor using (true);
		create policy all_queues on graphile_worker._private_job_queues to pg_monitor using (true);
		create policy all_tasks on graphile_worker._private_tasks to pg_monitor using (true)`)
	f.config.Hold.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := pgx.ConnectConfig(ctx, f.pool.Config().ConnConfig.Copy())
		if err == nil {
			_, err = conn.Exec(ctx, "set role pg_monitor")
		}
		return conn, err
	}
	held, lost := f.heldRuns(t, 50*time.Millisecond, func(ctx context.Context, _ *scheduler.Scheduler, id int64) error {
		_, err := f.pool.Exec(ctx, "update graphile_worker._private_jobs set payload = payload where id = $1", id)
		return err
	})
	if held < 3 || lost > 0 {
		t.Errorf("%d runs were held; %d held claims were lost", held, lost)
	}
}

// TestRunsThatHappenToEndWithTheirClaim are held, however many there are: nobody waits for
// their rows.
func TestRunsThatHappenToEndWithTheirClaim(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	held, _ := f.heldRuns(t, time.Hour, func(ctx context.Context, s *scheduler.Scheduler, id int64) error {
		time.Sleep(5 * time.Millisecond)
		s.ReleaseEarly(func(*job.Claimed) bool { return true })
		for locked := false; !locked; {
			if err := f.pool.QueryRow(ctx, `select locked_by is not null from graphile_worker._private_jobs where id = $1`, id).Scan(&locked); err != nil {
				return err
			}
		}
		return nil
	})
	if held < mostRuns/2 {
		t.Errorf("%d runs of %d were held", held, mostRuns)
	}
}

// mostRuns is how many runs there are, unless ten in a row before were locked.
const mostRuns = 40

// heldRuns tells how many runs of a task are held, before ten in a row are not, and how
// many claims were lost. Quick jobs run between them, which are held.
func (f *fixture) heldRuns(t *testing.T, hold time.Duration, waits func(context.Context, *scheduler.Scheduler, int64) error) (held, lost int) {
	t.Helper()
	ran := make(chan bool)
	var s *scheduler.Scheduler
	handler := func(then func(context.Context, *scheduler.Scheduler, int64) error) scheduler.Handler {
		return func(ctx context.Context, j *job.Claimed) job.Outcome {
			var locked bool
			err := f.pool.QueryRow(context.WithoutCancel(ctx),
				"select locked_by is not null from graphile_worker._private_jobs where id = $1", j.ID).Scan(&locked)
			if err == nil {
				err = then(ctx, s, j.ID)
			}
			ran <- locked
			if err != nil {
				return job.Outcome{Kind: job.Failed, Err: err, Permanent: true}
			}
			return job.Outcome{Kind: job.Completed}
		}
	}
	f.config.Handlers = map[string]scheduler.Handler{
		"waits": handler(waits),
		"quick": handler(func(context.Context, *scheduler.Scheduler, int64) error { return nil }),
	}
	connect := f.config.Hold.Connect
	f.holdFor(hold)
	if connect != nil {
		f.config.Hold.Connect = connect
	}
	f.config.PollInterval = time.Hour // a poll's claim is a locked one
	f.warm(t)
	s = scheduler.New(f.config)
	defer run(t, s)()
	f.warmed(t)
	locked := func(task string) (is bool) {
		f.exec(t, "select graphile_worker.add_job($1, job_key => case $1 when 'waits' then 'k' end)", task)
		s.Wake()
		select {
		case is = <-ran:
		case <-time.After(patience):
			t.Fatalf("a job does not run; %d were held", held)
		}
		return is
	}
	quick, quickHeld := 0, 0
	for inARow, runs := 0, 0; inARow < 10 && runs < mostRuns; runs++ {
		inARow++
		if !locked("waits") {
			inARow = 0
			held++
		}
		for range 4 {
			quick++
			if !locked("quick") {
				quickHeld++
			}
		}
	}
	if quickHeld < quick/4 {
		t.Errorf("%d of %d quick runs were held", quickHeld, quick)
	}
	for {
		select {
		case e := <-f.events:
			if _, ok := e.(event.HoldLost); ok {
				lost++
			}
		default:
			return held, lost
		}
	}
}
