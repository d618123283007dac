package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// holding is a worker that holds the jobs of its tasks "a" and "b" as long as it
// may. Nothing in these tests depends on that time: a job that is spilled by it
// looks to the worker's own client as it did before.
type holding struct {
	*testworker.Worker
	pool    *pgxpool.Pool
	other   *gworker.Client // which knows nothing of the worker
	release chan error      // what a handler returns
	ended   chan error      // the causes of contexts that have ended
}

// slots must be as many as jobs are held: where slots are idle, claims end early.
func startHolding(t *testing.T, slots int) *holding {
	t.Helper()
	h := &holding{pool: migrated(t), release: make(chan error), ended: make(chan error, 100)}
	h.other = newClient(t, h.pool)
	handler := func(ctx context.Context, job *gworker.Job[string]) error {
		if job.Payload == "warm" {
			return nil // the first job of a task is not held
		}
		select {
		case err := <-h.release:
			return err
		case <-ctx.Done():
			h.ended <- context.Cause(ctx)
			return ctx.Err()
		}
	}
	h.Worker = start(t, gworker.Config{
		Pool: h.pool, Concurrency: slots, HoldTime: new(10 * time.Second), GracefulShutdownAbortTimeout: time.Nanosecond,
		Tasks: []gworker.Task{gworker.NewTask("a", handler), gworker.NewTask("b", handler)},
	})
	for _, task := range []string{"a", "b"} {
		warm := add(t, h.other, gworker.JobSpec{Task: task, Payload: "warm"})
		waitFor(t, h.Events, func(e event.JobCompleted) bool { return e.Job.ID == warm.ID })
	}
	return h
}

// hold has jobs of the future run, and returns when they do: one claim takes them
// all.
func (h *holding) hold(t *testing.T, ids []int64) {
	t.Helper()
	if _, err := h.other.RescheduleJobs(t.Context(), ids, gworker.RescheduleOptions{RunAt: new(time.Time)}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		waitFor(t, h.Events, func(e event.JobStarted) bool { return e.Job.ID == id })
	}
}

// spill has the locks of everything that is held written, and returns when they
// are.
func (h *holding) spill(t *testing.T) {
	t.Helper()
	if _, err := h.Client().CompleteJobs(t.Context(), gworker.HeldIDs(h.Worker.Worker)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); len(gworker.HeldIDs(h.Worker.Worker)) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("jobs are still held")
		}
	}
}

func (h *holding) locks(t *testing.T) (n int) {
	t.Helper()
	scan(t, h.pool, "select count(*) from graphile_worker._private_jobs where locked_at is not null", nil, &n)
	return n
}

// reading is everything that a client tells about the jobs.
func reading(t *testing.T, c *gworker.Client, worker string, ids []int64) map[string]any {
	t.Helper()
	read := map[string]any{}
	note := func(what string, value any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		read[what] = value
	}
	for _, id := range ids {
		one, err := c.GetJob(t.Context(), id)
		note(fmt.Sprintf("GetJob %d", id), one, err)
		if one.Key != "" {
			one, err = c.GetJobByKey(t.Context(), one.Key)
			note("GetJobByKey "+one.Key, one, err)
		}
	}
	preview, err := c.PreviewJobs(t.Context(), append(slices.Clone(ids), idMissing))
	note("PreviewJobs", preview, err)
	all := []gworker.JobState{gworker.StateScheduled, gworker.StateReady, gworker.StateBlocked, gworker.StateRunning, gworker.StateRetrying, gworker.StateFailed}
	var sets [][]gworker.JobState
	for i := range all {
		sets = append(sets, all[:i], all[i:i+1])
		for j := range i {
			sets = append(sets, []gworker.JobState{all[j], all[i]})
		}
	}
	for _, states := range sets {
		for _, order := range []gworker.JobOrder{gworker.OrderByID, gworker.OrderNewestFirst, gworker.OrderNext} {
			if order == gworker.OrderNext && (slices.Contains(states, gworker.StateRunning) || slices.Contains(states, gworker.StateFailed)) {
				continue
			}
			// Two pages, so that cursors are compared as well.
			page, err := c.ListJobs(t.Context(), gworker.JobFilter{States: states, Order: order, Limit: 2})
			note(fmt.Sprintf("ListJobs %v %s", states, order), page, err)
			if page.NextCursor != "" {
				page, err = c.ListJobs(t.Context(), gworker.JobFilter{States: states, Order: order, Cursor: page.NextCursor})
				note(fmt.Sprintf("ListJobs %v %s, rest", states, order), page, err)
			}
		}
	}
	for _, f := range []gworker.JobFilter{
		{Workers: []string{worker}}, {Workers: []string{"gworker_x", worker}}, {Workers: []string{"gworker_x"}},
		{Workers: []string{worker}, States: []gworker.JobState{gworker.StateReady}}, {Tasks: []string{"b"}, WithPayload: true},
	} {
		page, err := c.ListJobs(t.Context(), f)
		note(fmt.Sprintf("ListJobs %+v", f), page, err)
	}
	stats, err := c.Stats(t.Context(), gworker.StatsOptions{})
	note("Stats", stats, err)
	for _, locked := range []bool{false, true} {
		queues, err := c.Queues(t.Context(), gworker.QueueFilter{LockedOnly: locked})
		note(fmt.Sprintf("Queues, LockedOnly %t", locked), queues, err)
	}
	workers, err := c.Workers(t.Context())
	note("Workers", workers, err)
	return read
}

// sameReading leaves out how long ago something was.
var sameReading = cmp.Options{
	cmpopts.IgnoreFields(gworker.JobInfo{}, "ReadAt"), cmpopts.IgnoreFields(gworker.JobRow{}, "UpdatedAt"),
	cmpopts.IgnoreFields(gworker.Stats{}, "LongestWait"), cmpopts.IgnoreFields(gworker.TaskStats{}, "LongestWait"),
	cmpopts.IgnoreFields(gworker.QueueStats{}, "LongestWait"), cmpopts.IgnoreFields(gworker.QueueInfo{}, "LongestWait", "LockedFor"),
	cmpopts.IgnoreFields(gworker.WorkerInfo{}, "LastHeartbeatAt", "Silence", "OldestLock"),
}

// Whatever the client of a worker tells about jobs that the worker holds, it tells
// the same when their locks are written. Other clients see the rows.
func TestHeldJobsReadAsRunning(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for range 5 {
		if testHeldJobsReadAsRunning(t) {
			return
		}
	}
	t.Error("the machine is so slow that jobs are held for too short")
}

// testHeldJobsReadAsRunning reports whether the jobs were held long enough.
func testHeldJobsReadAsRunning(t *testing.T) bool {
	h := startHolding(t, 5)
	later := time.Now().Add(time.Hour)
	var ids []int64
	for _, spec := range []gworker.JobSpec{
		{Task: "a"}, {Task: "a", Key: "k", Priority: 7}, {Task: "b", Queue: "q1"}, {Task: "b", Queue: "q2", Key: "of q2"}, {Task: "b"},
		{Task: "a", Queue: "q2"}, {Task: "a", Queue: "q2"}, {Task: "c", Queue: "q1"}, {Task: "c"}, {Task: "c", Queue: "free"},
	} {
		spec.Payload, spec.RunAt = "hold", later
		ids = append(ids, add(t, h.other, spec).ID)
	}
	held, retried, blocked := ids[:5], ids[4], ids[5]
	exec(t, h.pool, "update graphile_worker._private_jobs set attempts = 3, last_error = 'Boom' where id = $1", retried)
	h.hold(t, held)
	exec(t, h.pool, "update graphile_worker._private_jobs set run_at = now() where id = any ($1)", []int64{blocked, ids[7], ids[8]})

	outside := reading(t, h.other, h.ID(), ids)
	inside := reading(t, h.Client(), h.ID(), ids)
	tx, err := h.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inTx, err := h.Client().WithTx(tx).ListJobs(t.Context(), gworker.JobFilter{Workers: []string{h.ID()}})
	if err := errors.Join(err, tx.Rollback(context.Background())); err != nil {
		t.Fatal(err)
	}
	if h.locks(t) != 0 {
		return false
	}
	if len(inTx.Jobs) != len(held) {
		t.Errorf("in a transaction %d jobs are this worker's, want %d", len(inTx.Jobs), len(held))
	}
	one, ok := outside[fmt.Sprintf("GetJob %d", held[2])].(*gworker.JobInfo)
	if !ok || one.State != gworker.StateReady || one.LockedBy != "" || one.QueueLockedBy != "" {
		t.Errorf("to another client a held job is %+v, want its row", one)
	}
	changed, err := h.Client().RescheduleJobs(t.Context(), []int64{blocked}, gworker.RescheduleOptions{Priority: new(0)})
	if err != nil || len(changed.Jobs) != 1 || changed.Jobs[0].State != gworker.StateBlocked || changed.Jobs[0].QueueLockedBy != h.ID() {
		t.Errorf("changing a job behind a held one: %+v, %v", changed, err)
	}

	h.spill(t)
	if n := h.locks(t); n != len(held) {
		t.Fatalf("%d of %d jobs are locked", n, len(held))
	}
	for _, c := range []*gworker.Client{h.Client(), h.other} {
		if diff := cmp.Diff(reading(t, c, h.ID(), ids), inside, sameReading); diff != "" {
			t.Errorf("what the worker's client tells of held jobs (-locked +held):\n%s", diff)
		}
	}
	first := inside[fmt.Sprintf("GetJob %d", retried)].(*gworker.JobInfo)
	if first.State != gworker.StateRunning || first.LockedBy != h.ID() || first.LockedAt.IsZero() || first.Attempts != 4 {
		t.Errorf("a held job that was tried before is %+v", first)
	}
	return true
}

// changer is what a client and the clients of transactions have in common.
type changer interface {
	administrator
	gworker.JobAdder
}

// Changes to held jobs do what they do to running ones. The worker's own client
// ends the claim for it, and for no other job's sake.
func TestChangesToHeldJobs(t *testing.T) {
	var sample testdb.Sample
	untouched := func(changed gworker.ChangedJobs, err error, id int64, worker string) error {
		if err != nil {
			return err
		}
		if len(changed.Jobs) != 0 || len(changed.Untouched) != 1 || changed.Untouched[0].Reason != gworker.UntouchedLocked {
			return fmt.Errorf("the result is %+v, want job %d untouched", changed, id)
		}
		if job := changed.Untouched[0].Job; job.ID != id || worker != "" && (job.State != gworker.StateRunning || job.LockedBy != worker || job.LockedAt.IsZero() || job.Attempts != 1) {
			return fmt.Errorf("the untouched job is told as %+v", job)
		}
		return nil
	}
	keyed := func(mode gworker.KeyMode) func(context.Context, changer, int64, string) error {
		return func(ctx context.Context, c changer, _ int64, _ string) error {
			_, err := c.AddJob(ctx, gworker.JobSpec{Task: "c", Key: "k", KeyMode: mode})
			return err
		}
	}
	cases := map[string]struct {
		change func(ctx context.Context, c changer, id int64, worker string) error
		left   string // attempts of max, key and lock of the job, and what else there is
	}{
		"CompleteJobs": {func(ctx context.Context, c changer, id int64, worker string) error {
			changed, err := c.CompleteJobs(ctx, []int64{id})
			return untouched(changed, err, id, worker)
		}, "1/25 k locked"},
		"PermanentlyFailJobs": {func(ctx context.Context, c changer, id int64, worker string) error {
			changed, err := c.PermanentlyFailJobs(ctx, []int64{id}, "no")
			return untouched(changed, err, id, worker)
		}, "1/25 k locked"},
		"RescheduleJobs": {func(ctx context.Context, c changer, id int64, worker string) error {
			changed, err := c.RescheduleJobs(ctx, []int64{id}, gworker.RescheduleOptions{Priority: new(9)})
			return untouched(changed, err, id, worker)
		}, "1/25 k locked"},
		"RemoveJob": {func(ctx context.Context, c changer, id int64, _ string) error {
			_, err := c.RemoveJob(ctx, "k")
			return err
		}, "25/25 - locked"},
		"Cancel": {func(ctx context.Context, c changer, id int64, worker string) error {
			result, err := c.(*gworker.Client).Cancel(ctx, id, "no more")
			if err == nil && (result.State != gworker.CancelRequested || worker != "" && result.WorkerID != worker) {
				err = fmt.Errorf("the result is %+v", result)
			}
			return err
		}, ""},
		"AddJob, replace":         {keyed(gworker.KeyReplace), "25/25 - locked, 0/25 k free"},
		"AddJob, preserve_run_at": {keyed(gworker.KeyPreserveRunAt), "25/25 - locked, 0/25 k free"},
		"AddJob, unsafe_dedupe":   {keyed(gworker.KeyUnsafeDedupe), "1/25 k locked"},
		"AddJobs": {func(ctx context.Context, c changer, _ int64, _ string) error {
			_, err := c.AddJobs(ctx, []gworker.JobSpec{{Task: "c"}, {Task: "c", Key: "k"}})
			return err
		}, "25/25 - locked, 0/25 - free, 0/25 k free"},
	}
	for name, c := range cases {
		for _, tx := range []bool{false, true} {
			if tx && name == "Cancel" {
				continue // it has a transaction of its own
			}
			t.Run(fmt.Sprintf("%s, in a transaction %t", name, tx), func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				h := startHolding(t, 2)
				var ids []int64
				for _, spec := range []gworker.JobSpec{{Task: "b", Key: "other"}, {Task: "a", Key: "k"}} {
					spec.Payload, spec.RunAt = "hold", time.Now().Add(time.Hour)
					ids = append(ids, add(t, h.other, spec).ID)
				}
				bystander, id := ids[0], ids[1]
				h.hold(t, ids)
				releases := 0
				gworker.ObserveReleaseEarly(h.Worker.Worker, func(held, meant []int64) {
					if releases++; !slices.Contains(held, id) {
						t.Logf("the machine was so slow that only %v are still held", held)
					} else if !slices.Equal(meant, []int64{id}) {
						t.Errorf("the change releases %v early, want %d alone", meant, id)
					}
				})
				if tx {
					if err := pgx.BeginFunc(t.Context(), h.pool, func(tx pgx.Tx) error {
						return c.change(t.Context(), h.Client().WithTx(tx), id, h.ID())
					}); err != nil {
						t.Fatal(err)
					}
				} else if err := c.change(t.Context(), h.Client(), id, h.ID()); err != nil {
					t.Fatal(err)
				}
				if releases != 1 {
					t.Errorf("the change releases held jobs %d times", releases)
				}
				if c.left == "" {
					if cause := <-h.ended; !errors.Is(cause, gworker.ErrJobCancelled) || !strings.Contains(cause.Error(), "no more") {
						t.Errorf("the run has ended for %v", cause)
					}
					e := waitFor(t, h.Events, func(e event.JobPermanentlyFailed) bool { return e.Job.ID == id })
					if !errors.Is(e.Err, gworker.ErrJobCancelled) {
						t.Errorf("%+v", e)
					}
					return
				}
				var left string
				scan(t, h.pool, `select string_agg(concat_ws(' ', attempts || '/' || max_attempts, coalesce(key, '-'),
					case when locked_by = $2 and locked_at is not null then 'locked' when locked_at is null then 'free' end), ', ' order by id)
					from graphile_worker._private_jobs where id <> $1`, []any{bystander, h.ID()}, &left)
				if left != c.left {
					t.Errorf("left are %q, want %q", left, c.left)
				}
				h.release <- nil
				h.release <- nil
				waitFor(t, h.Events, func(e event.JobCompleted) bool { return e.Job.ID == id })
			})
		}
	}
}
