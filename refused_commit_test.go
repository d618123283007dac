package gworker_test

import (
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestRefusalsAtTheCommit: a deferred constraint trigger sets no held job free, beside
// jobs that are in order, but once where it has come while the worker ran. Then the rest
// of its claim may run again, and the worker says that it was lost.
func TestRefusalsAtTheCommit(t *testing.T) {
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
				w := start(t, gworker.Config{Pool: pool, Concurrency: 4, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}, Observers: []func(gworker.Event){
					func(e gworker.Event) {
						if started, is := e.(gworker.JobStarted); is && !lockIsWritten(t, pool, started.Job.ID) {
							held <- struct{}{}
						}
					},
				}})
				for hold := 0; hold == 0; hold = len(held) {
					before := add(t, client, gworker.JobSpec{Task: "x"})
					waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == before.ID })
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
						waitFor(t, w.events, func(e gworker.JobCompleted) bool { return e.Job.ID == job.ID })
					}
					waitFor(t, w.events, func(e gworker.Event) bool { // its lock may be what is refused
						switch e := e.(type) {
						case gworker.OutcomeRefused:
							return e.Job.ID == jobs[0].ID
						case gworker.ClaimRefused:
							return e.Job.ID == jobs[0].ID
						}
						return false
					})
				}
				if err := w.stop(); err != nil {
					t.Error(err)
				}
				// Whoever makes the trigger late may meet each connection's claim once.
				if n := count[gworker.HoldLost](w.events); n > 2 || n > 0 && !late {
					t.Errorf("%d holds were lost", n)
				}
			})
		}
	}
}
