package scheduler

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// TestAClaimBehindAnEndKeepsNoShutdown: the end of a held claim and the next claim are one
// round trip, and a shutdown waits for the end only. It was committed here, so what is left
// to find out is that the row is gone.
func TestAClaimBehindAnEndKeepsNoShutdown(t *testing.T) {
	url := testdb.Migrated(t)
	pool := testdb.Pool(t, url)
	set := statement.NewSet(statement.Options{})
	ended := make(chan event.Event, 10)
	s := New(Config{
		Database: set.Bind(pool, nil), WorkerID: "gworker_test", Concurrency: 1, PollInterval: time.Hour,
		StatementTimeout: time.Hour, AbortTimeout: time.Minute,
		Events: eventstream.New(func(e event.Event) {
			switch e.(type) {
			case event.JobCompleted, event.HoldLost, event.JobLost:
				ended <- e
			}
		}),
		Hold: Hold{
			Time: time.Hour, Statements: set,
			Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
		},
		Handlers: map[string]Handler{"x": func(context.Context, *job.Claimed) job.Outcome { return job.Outcome{Kind: job.Completed} }},
	})
	s.durations.ran("x", time.Microsecond) // so that its jobs are held
	exec(t, pool, "select graphile_worker.add_job('x'), graphile_worker.add_job('x')")

	// What Run starts, but for the loop, which is this test.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	claiming, cut := context.WithCancel(ctx)
	defer cut()
	s.completer.Start(ctx)
	s.pool.start(ctx)
	s.holds.start(ctx, claiming)
	defer func() {
		for _, cc := range s.holds.conns {
			close(cc.commands)
		}
		s.holds.running.Wait()
		<-s.pool.close()
		s.completer.Close(ctx.Done())
	}()
	cc := s.holds.conns[0]
	answered := func(c command) answer {
		t.Helper()
		cc.command(c)
		select {
		case a := <-s.holds.answers:
			cc.answered(a)
			return a
		case <-time.After(time.Minute):
			t.Fatal("the connection does not answer")
			return answer{}
		}
	}
	newClaim := func() *claim {
		return &claim{asked: 1, limit: 1, held: true, number: s.pool.claimBegins(), selection: selection{tasks: s.claims.tasks}}
	}
	if a := answered(command{connect: true}); a.err != nil {
		t.Fatal(a.err)
	}
	first := answered(command{claim: newClaim()})
	if first.open == nil {
		t.Fatalf("nothing is held: %+v", first.claim)
	}
	s.pool.claimEnded(first.claim.number, cursor{}, first.claim.jobs, false)
	for left := 1; left > 0; { // until its job has run
		s.pool.mu.Lock()
		left = first.open.left
		s.pool.mu.Unlock()
	}

	// This lock is granted when the transaction of the first claim ends, and the next claim
	// has to wait for it.
	other, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback(context.WithoutCancel(ctx))
	granted := make(chan error, 1)
	go func() {
		_, err := other.Exec(ctx, "lock graphile_worker._private_tasks in access exclusive mode")
		granted <- err
	}()
	somebodyWaits := func() {
		for waits := false; !waits && ctx.Err() == nil; {
			if err := pool.QueryRow(ctx, `select exists (select from pg_locks where not granted
				and relation = 'graphile_worker._private_tasks'::regclass)`).Scan(&waits); err != nil {
				t.Error(err)
				return
			}
		}
	}
	somebodyWaits()
	go func() {
		if err := <-granted; err != nil {
			t.Error(err)
		}
		somebodyWaits()
		cut()
	}()
	second := answered(command{end: first.open, claim: newClaim()})
	if second.claim.err == nil || second.open != nil {
		t.Errorf("the claim that was cut off: %+v", second.claim)
	}
	if e, ok := (<-ended).(event.HoldLost); !ok || e.Kept != 0 || e.Lost != 1 {
		t.Errorf("the held claim ended with %#v", e)
	}
	if e, ok := (<-ended).(event.JobLost); !ok || !e.Unsure || e.Job.ID != first.claim.jobs[0].ID {
		t.Errorf("the first job ended with %#v", e)
	}
	if err := other.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := pool.QueryRow(ctx, "select count(*) from graphile_worker._private_jobs where locked_by is null").Scan(&left); err != nil || left != 1 {
		t.Errorf("%d jobs are left (%v)", left, err)
	}
}
