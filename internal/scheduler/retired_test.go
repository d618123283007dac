package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/scheduler/completer"
	"github.com/gworker/gworker/internal/testdb"
)

// TestRetiredAtEveryMoment replaces or removes a running job through its key at
// every moment of its run, for every way in which the run can end. The old
// payload must never come back, and the new job must be there untouched.
func TestRetiredAtEveryMoment(t *testing.T) {
	var sample testdb.Sample
	hour := time.Hour
	outcomes := map[string]job.Outcome{
		"completed": {Kind: job.Completed},
		"failed":    {Kind: job.Failed, Err: errors.New("no")},
		"permanent": {Kind: job.Failed, Err: errors.New("no"), Permanent: true},
		"delayed":   {Kind: job.Failed, Err: errors.New("no"), Delay: &hour, Payload: []byte(`[2]`)},
		"snoozed":   {Kind: job.Snoozed, Err: errors.New("later"), Delay: &hour},
		"cut off":   {Kind: job.Failed, Err: errors.New("stopped")}, // as its context ends
		"abandoned": {Kind: job.Completed},                          // too late
	}
	// What is left of the old job; its attempts are always used up.
	left := map[string]string{
		"completed": "", "failed": "3/3 no [1]", "permanent": "3/3 no [1]", "delayed": "3/3 no [2]",
		"snoozed": "3/3 [1]", "cut off": "3/3 [1]", "abandoned": "3/3 [1]",
	}
	replacements := map[string]string{
		"replaced": "select graphile_worker.add_job('x', '[9]', job_key => 'k', run_at => now() + interval '1 day')",
		"removed":  "select graphile_worker.remove_job('k')",
	}
	for ending, outcome := range outcomes {
		for _, moment := range []string{"claimed", "started", "ended", "aborted", "writing"} {
			for what, sql := range replacements {
				if moment == "aborted" && ending != "cut off" {
					continue // nobody is aborted, or forced out of it at once
				}
				t.Run(ending+"/"+moment+"/"+what, func(t *testing.T) {
					sample.Take(t)
					t.Parallel()
					var f *fixture
					started, release, changed := make(chan struct{}), make(chan struct{}), make(chan struct{})
					f = newFixture(t, map[string]scheduler.Handler{"x": func(ctx context.Context, _ *job.Claimed) job.Outcome {
						if moment == "started" {
							f.exec(t, sql)
						}
						switch {
						case moment == "writing" && ending == "abandoned":
							f.holdRow(t, sql)
						case moment == "writing":
							defer f.holdRow(t, sql)
						}
						close(started)
						switch ending {
						case "cut off":
							<-ctx.Done()
							if moment == "aborted" {
								<-changed // or the job may have gone back before
							}
						case "abandoned":
							<-release
						}
						return outcome
					}})
					at := map[string]func(event.Event) bool{
						"claimed": func(e event.Event) bool { _, ok := e.(event.JobStarted); return ok }, // before the handler
						"ended":   func(e event.Event) bool { _, ok := e.(event.JobEnded); return ok },   // before anything is written
						"aborted": func(e event.Event) bool { _, ok := e.(event.JobsAborted); return ok },
					}[moment]
					if moment == "ended" && ending == "abandoned" {
						at = func(e event.Event) bool { _, ok := e.(event.WorkerStopping); return ok }
					}
					f.config.Events = eventstream.New(func(e event.Event) {
						if at != nil && at(e) {
							f.exec(t, sql)
							close(changed)
						}
						f.events <- e
					})
					f.config.AbortTimeout = time.Millisecond
					if ending != "cut off" && ending != "abandoned" {
						f.config.AbortTimeout = time.Hour
					}
					f.exec(t, "select graphile_worker.add_job('x', '[1]', job_key => 'k', queue_name => 'q', max_attempts => 3)")
					s := scheduler.New(f.config)
					stop := run(t, s)
					<-started
					if ending == "abandoned" {
						s.Force()
					}
					stop()
					close(release)
					f.holding.Wait()
					f.wantRetired(t, left[ending], what == "replaced")
				})
			}
		}
	}
}

// holdRow locks the job's row, and changes it when the statement that writes the
// outcome waits for it: the statement judges the row as it was then.
func (f *fixture) holdRow(t *testing.T, sql string) {
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := tx.Exec(t.Context(), "select from graphile_worker._private_jobs for update"); err != nil {
		t.Error(err)
	}
	f.holding.Go(func() {
		for waiting := false; !waiting && err == nil; {
			err = f.pool.QueryRow(t.Context(), `select exists (select from pg_locks where not granted and database =
				(select oid from pg_database where datname = current_database()) or not granted and locktype = 'transactionid')`).Scan(&waiting)
		}
		if err == nil {
			_, err = tx.Exec(t.Context(), sql)
		}
		if err := errors.Join(err, tx.Commit(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

func (f *fixture) wantRetired(t *testing.T, old string, replaced bool) {
	t.Helper()
	rows, err := f.pool.Query(t.Context(), `select concat_ws(' ', attempts || '/' || max_attempts, last_error, payload, locked_by, key)
		from graphile_worker._private_jobs order by id`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if old != "" {
		want = append(want, old)
	}
	if replaced {
		want = append(want, "0/25 [9] k")
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("rows are %q, want %q", got, want)
	}
	var locked int
	if err := f.pool.QueryRow(t.Context(), "select count(*) from graphile_worker._private_job_queues where locked_by is not null").Scan(&locked); err != nil || locked != 0 {
		t.Errorf("%d queues are locked (%v)", locked, err)
	}
}

// TestFateOfATransactionIsAskedAgain: the answers about it get lost, too.
func TestFateOfATransactionIsAskedAgain(t *testing.T) {
	var f *fixture
	f = newFixture(t, map[string]scheduler.Handler{"x": func(_ context.Context, j *job.Claimed) job.Outcome {
		var xid int64
		err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "delete from graphile_worker._private_jobs where id = $1", j.ID)
			return errors.Join(err, tx.QueryRow(t.Context(), "select txid_current()").Scan(&xid))
		})
		j.SetCompletion(xid)
		return job.Outcome{Kind: job.Failed, Err: errors.Join(errors.New("the commit's answer was lost"), err)}
	}, "unknown": func(_ context.Context, j *job.Claimed) job.Outcome {
		j.SetCompletion(1 << 40) // as a server after a failover may see it
		return job.Outcome{Kind: job.Completed}
	}})
	f.exec(t, "select graphile_worker.add_job('x'), graphile_worker.add_job('unknown')")
	f.db.lose["TransactionFates"], f.db.lose["LostJobs"] = 1, 1
	s := scheduler.New(f.config)
	stop := run(t, s)
	for completed, failed := 0, 0; completed+failed < 2; {
		switch e := (<-f.events).(type) {
		case event.OutcomesDelayed:
			s.DatabaseBack()
		case event.JobCompleted:
			completed++
		case event.JobFailed:
			failed++
			if e.Job.Task != "unknown" || !errors.Is(e.Err, completer.ErrNotCommitted) {
				t.Errorf("%+v", e)
			}
		case event.JobLost:
			t.Fatalf("lost: %+v", e)
		}
	}
	stop()
	if n := f.jobs(t); n != 1 {
		t.Errorf("%d jobs left", n)
	}
}
