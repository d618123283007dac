package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// TestRefusalsAtTheCommit: the refusals of a deferred constraint trigger do not make the
// other jobs of a claim run again. The exception is the first refusal of a trigger that was
// created while the worker ran: then they may, and the worker says that they were lost.
func TestRefusalsAtTheCommit(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	deferred := func(event string) string {
		return `create function poison() returns trigger language plpgsql as $$ begin
				if old.payload::text = '{"bad":true}' then raise exception 'not this one'; end if;
				return null;
			end $$;
			create constraint trigger poison after ` + event + ` on graphile_worker._private_jobs
				deferrable initially deferred for each row execute function poison()`
	}
	for name, sql := range map[string]string{
		"completion": deferred("delete"), "both": deferred("delete or update of locked_at"),
	} {
		for when, late := range map[string]bool{"before": false, "late": true} {
			t.Run(name+" "+when, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				pool := migrated(t)
				client := newClient(t, pool)
				if !late {
					exec(t, pool, sql)
				}
				held := make(chan struct{}, 10_000)
				w := start(t, gworker.Config{Pool: pool, Concurrency: 4, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Observers: []func(event.Event){
					func(e event.Event) {
						if started, is := e.(event.JobStarted); is && !testworker.IsLocked(t, pool, started.Job.ID) {
							held <- struct{}{}
						}
					},
				}})
				for hold := 0; hold == 0; hold = len(held) {
					before := add(t, client, gworker.JobSpec{Task: "x"})
					waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == before.ID })
				}
				if late {
					exec(t, pool, sql)
				}
				for range 5 {
					specs := []gworker.JobSpec{{Task: "x", Payload: map[string]bool{"bad": true}}}
					for range 10 {
						specs = append(specs, gworker.JobSpec{Task: "x"})
					}
					jobs, err := client.AddJobs(t.Context(), specs)
					if err != nil {
						t.Fatal(err)
					}
					for _, job := range jobs[1:] {
						waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
					}
					waitFor(t, w.Events, func(e event.Event) bool { // its lock may be what is refused
						switch e := e.(type) {
						case event.OutcomeRefused:
							return e.Job.ID == jobs[0].ID
						case event.ClaimRefused:
							return e.Job.ID == jobs[0].ID
						}
						return false
					})
				}
				if err := w.Stop(); err != nil {
					t.Error(err)
				}
				// Whoever makes the trigger late may meet each connection's claim once.
				if n := count[event.HoldLost](w.Events); n > 2 || n > 0 && !late {
					t.Errorf("%d holds were lost", n)
				}
			})
		}
	}
}

// TestWhatIsNoAnswerIsWaitedOut: the server may be unable to store the end of a held
// claim for now, as with a full disk: that is no answer to its jobs, and is waited out.
func TestWhatIsNoAnswerIsWaitedOut(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, "create table gate (); "+poisonTrigger("update or delete", "true", "lock table gate in share mode nowait"))
	client := newClient(t, pool)
	running, goOn := make(chan struct{}, 100), make(chan struct{})
	w := start(t, gworker.Config{Pool: pool, HoldTime: new(5 * time.Second), Concurrency: 2, Tasks: []gworker.Task{
		gworker.NewRawTask("x", func(ctx context.Context, job *gworker.RawJob) error {
			if string(job.Payload) == `{"bad":true}` {
				running <- struct{}{}
				select {
				case <-goOn:
				case <-ctx.Done():
				}
			}
			return nil
		}),
	}})
	for count[event.JobsClaimed](w.Events) < 3 { // until jobs of the task are known to be short
		before := add(t, client, gworker.JobSpec{Task: "x"})
		waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == before.ID })
	}
	gate, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Rollback(context.Background())
	if _, err := gate.Exec(t.Context(), "lock table gate in exclusive mode"); err != nil {
		t.Fatal(err)
	}
	job := add(t, client, gworker.JobSpec{Task: "x", Payload: map[string]bool{"bad": true}})
	<-running
	close(goOn)
	waitFor[event.OutcomesDelayed](t, w.Events, nil)
	if err := gate.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, w.Events, func(e event.JobCompleted) bool { return e.Job.ID == job.ID })
	if n := count[event.OutcomeRefused](w.Events); n > 0 {
		t.Errorf("%d outcomes were refused", n)
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}
