package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// What administrators do is recorded with who did it and why, in the transaction that does it.
func TestHistoryOfActions(t *testing.T) {
	pool := migrated(t)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool, ActsFor: "ada <ada@example.org>"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ids := make([]int64, 6)
	for i := range ids {
		ids[i] = testworker.Add(t, client, gworker.JobSpec{Task: fmt.Sprint("t", i), Key: fmt.Sprint("k", i)}).ID
	}
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(client.PermanentlyFailJobs(t.Context(), []int64{ids[0], ids[1], 9999}, "no longer wanted"))
	do(client.RetryJobs(t.Context(), ids[:1]))
	do(client.RescheduleJobs(t.Context(), ids[2:3], gworker.RescheduleOptions{Priority: new(7)}))
	do(client.CompleteJobs(t.Context(), ids[3:4]))
	do(client.Cancel(t.Context(), ids[4], "the order was withdrawn"))
	do(client.Cancel(t.Context(), ids[4], "again, which changes nothing"))
	testdb.Exec(t, pool, "update graphile_worker._private_jobs set locked_by = 'gone', locked_at = now() where id = $1", ids[5])
	do(client.ForceUnlockWorkers(t.Context(), []string{"gone", "unheard of"}))
	do(client.Cleanup(t.Context(), gworker.CleanupOptions{DryRun: true}))
	do(client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: []gworker.CleanupTask{gworker.GCJobQueues}}))
	do(client.CompleteJobs(t.Context(), []int64{9999}))
	do(client.CompleteJobs(t.Context(), nil))

	// In a transaction of the caller's, the event has the fate of what it is about.
	for commit, id := range map[bool]int64{false: ids[5], true: ids[5]} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if commit {
			do(client.WithTx(tx).RetryJobs(t.Context(), []int64{id}))
			err = tx.Commit(t.Context())
		} else {
			do(client.WithTx(tx).CompleteJobs(t.Context(), []int64{id}))
			err = tx.Rollback(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	page, err := client.Events(t.Context(), history.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, e := range page.Events {
		var d struct {
			By, Reason   string
			OSUser       string `json:"os_user"`
			DatabaseUser string `json:"database_user"`
			Program      string
			Count        int
			What         json.RawMessage
		}
		if err := json.Unmarshal(e.Details, &d); err != nil {
			t.Fatal(err)
		}
		if d.By != "ada <ada@example.org>" || d.OSUser == "" || d.DatabaseUser == "" || d.Program == "" {
			t.Errorf("%s was done by %s", e.Kind, e.Details)
		}
		got[fmt.Sprintf("%s %d %d %s %s %d %q %s", e.Kind, e.JobID, len(e.JobIDs), e.Task, e.Key, d.Count, d.Reason, d.What)]++
	}
	want := map[string]int{
		`fail 0 2   2 "no longer wanted" `:                                                      1,
		fmt.Sprintf(`retry %d 0 t0 k0 1 "" `, ids[0]):                                           1,
		fmt.Sprintf(`reschedule %d 0 t2 k2 1 "" {"priority": 7}`, ids[2]):                       1,
		fmt.Sprintf(`complete %d 0   1 "" `, ids[3]):                                            1,
		fmt.Sprintf(`cancel %d 0 t4 k4 1 "the order was withdrawn" `, ids[4]):                   1,
		fmt.Sprintf(`force_unlock %d 0 t5 k5 1 "" {"workers": ["gone", "unheard of"]}`, ids[5]): 1,
		fmt.Sprintf(`retry %d 0 t5 k5 1 "" `, ids[5]):                                           1,
	}
	for line := range want {
		if got[line] != 1 {
			t.Errorf("no event %q", line)
		}
	}
	if len(page.Events) != len(want)+1 { // and the cleanup
		t.Errorf("%d events: %v", len(page.Events), got)
	}
	for _, id := range ids[:2] { // also what was done to several
		found, err := client.JobHistory(t.Context(), id)
		if err != nil || len(found.Events) == 0 || found.Events[0].Kind != history.ActionFail {
			t.Errorf("%+v, %v", found, err)
		}
	}
}

// Conditions combine, pages follow one another without a gap, and what is wrong is refused.
func TestEventsAreListed(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	for i := range 25 {
		testworker.Add(t, client, gworker.JobSpec{Task: []string{"fails", "discards"}[i%2], Key: fmt.Sprint("k", i), Queue: fmt.Sprint("q", i%5)})
	}
	began := time.Now().Add(-time.Minute)
	runOnce(t, gworker.Config{Pool: pool, Tasks: historyTasks(), HistoryCap: 1000})
	list := func(f history.Filter) (events []history.Event) {
		t.Helper()
		for {
			page, err := client.Events(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, page.Events...)
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return events
			}
		}
	}
	all := list(history.Filter{})
	if len(all) != 25 {
		t.Fatalf("%d events", len(all))
	}
	for _, limit := range []int{1, 7, 25, 26} {
		paged := list(history.Filter{Limit: limit})
		if len(paged) != len(all) {
			t.Fatalf("pages of %d have %d events", limit, len(paged))
		}
		for i := range all {
			if paged[i].JobID != all[i].JobID {
				t.Errorf("pages of %d: event %d is of job %d, want %d", limit, i, paged[i].JobID, all[i].JobID)
			}
		}
	}
	for name, c := range map[string]struct {
		filter history.Filter
		want   int
	}{
		"kind":          {history.Filter{Kinds: []history.Kind{history.Failed}}, 13},
		"kinds":         {history.Filter{Kinds: []history.Kind{history.Failed, history.PermanentlyFailed}}, 25},
		"task":          {history.Filter{Tasks: []string{"discards"}}, 12},
		"no such task":  {history.Filter{Tasks: []string{"nothing"}}, 0},
		"queue":         {history.Filter{Queue: "q1"}, 5},
		"key":           {history.Filter{Key: "k3"}, 1},
		"error":         {history.Filter{Error: "NO SUCH"}, 13},
		"no wildcard":   {history.Filter{Error: "n_ %"}, 0},
		"task and key":  {history.Filter{Tasks: []string{"fails"}, Key: "k3"}, 0},
		"since":         {history.Filter{Since: began}, 25},
		"until":         {history.Filter{Until: began}, 0},
		"since to come": {history.Filter{Since: time.Now().Add(time.Hour)}, 0},
		"worker":        {history.Filter{WorkerID: all[0].WorkerID}, 25},
		"other worker":  {history.Filter{WorkerID: "x"}, 0},
	} {
		if got := list(c.filter); len(got) != c.want {
			t.Errorf("%s: %d events, want %d", name, len(got), c.want)
		}
	}
	for field, f := range map[string]history.Filter{
		"Filter.Limit":  {Limit: 1001},
		"Filter.Kinds":  {Kinds: []history.Kind{"exploded"}},
		"Filter.Cursor": {Cursor: "e30"},
		"Filter.Queue":  {Queue: "\x00"},
	} {
		_, err := client.Events(t.Context(), f)
		testworker.WantFieldError(t, err, field, "")
	}
	for _, o := range []history.StatsOptions{{By: "week"}, {Since: time.Now(), Until: time.Now().Add(-time.Hour)}} {
		if _, err := client.TaskStats(t.Context(), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// A run whose job was taken away, and a job whose worker has died, are events too.
func TestHistoryOfLostJobs(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	locked := make(chan struct{})
	end := make(chan struct{})
	w := testworker.Start(t, gworker.Config{Pool: pool, HoldTime: new(time.Duration), Tasks: []gworker.Task{
		gworker.NewRawTask("t", func(context.Context, *gworker.RawJob) error {
			locked <- struct{}{}
			<-end
			return errors.New("too late")
		}),
	}})
	lost := testworker.Add(t, client, gworker.JobSpec{Task: "t"}).ID
	<-locked
	testdb.Exec(t, pool, "update graphile_worker._private_jobs set locked_by = 'thief' where id = $1", lost)
	close(end)
	waitFor(t, w.Events, func(e event.JobLost) bool { return e.Job.ID == lost })

	dead := testworker.Add(t, client, gworker.JobSpec{Task: "u", Queue: "q"}).ID
	testdb.Exec(t, pool, "update graphile_worker._private_jobs set locked_by = 'gworker_dead', locked_at = now() - interval '1 hour', attempts = 3 where id = $1", dead)
	testdb.Exec(t, pool, "insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('gworker_dead', now() - interval '1 hour')")
	if result, err := client.Sweep(t.Context(), gworker.SweepOptions{DryRun: true}); err != nil || len(result.Workers) != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	if _, err := client.Sweep(t.Context(), gworker.SweepOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int64]string{lost: "lost 1 too late", dead: "recovered 3 "} {
		found, err := client.JobHistory(t.Context(), id)
		if err != nil || len(found.Events) != 1 {
			t.Errorf("%+v, %v", found, err)
			continue
		}
		e := found.Events[0]
		if got := fmt.Sprintf("%s %d %s", e.Kind, e.Attempt, e.Error); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if e.Kind == history.Recovered && (e.WorkerID != "gworker_dead" || !strings.Contains(string(e.Details), `"silent_seconds": 3`)) {
			t.Errorf("recovered: %+v %s", e, e.Details)
		}
	}
}

// Workers that live for a moment only, as from a system's cron, keep the tables in order, too.
func TestShortWorkersKeepHistory(t *testing.T) {
	pool := migrated(t)
	parts := func() (count int) {
		testdb.Scan(t, pool, "select count(*) from pg_inherits where inhparent = 'graphile_worker._gworker_events'::regclass", nil, &count)
		return count
	}
	all := parts()
	testdb.Exec(t, pool, `do $$ declare p text; begin
		for p in select inhrelid::regclass from pg_inherits where inhparent = 'graphile_worker._gworker_events'::regclass order by 1::text loop
			if right(p, 8) > to_char(now() at time zone 'UTC' + interval '1 day', 'YYYYMMDD') then execute 'drop table ' || p; end if;
		end loop; end $$`)
	if parts() >= all {
		t.Fatalf("%d partitions are left of %d", parts(), all)
	}
	runOnce(t, gworker.Config{Pool: pool, Tasks: historyTasks()})
	if got := parts(); got != all {
		t.Errorf("%d partitions, want %d", got, all)
	}
}

// A run that was cancelled is told from one that failed, whether its worker has heard of that
// or not, and whatever the reason is.
func TestHistoryOfCancelledRuns(t *testing.T) {
	for name, config := range ways {
		for _, heard := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, heard %t", name, heard), func(t *testing.T) {
				t.Parallel()
				pool := migrated(t)
				client := newClient(t, pool)
				config := config
				config.Pool = pool
				if !heard {
					config.NoListen = true
					config.Recovery.HeartbeatInterval, config.Recovery.StaleAfter = time.Hour, 3*time.Hour
				}
				began, end := make(chan struct{}), make(chan struct{})
				config.Tasks = []gworker.Task{gworker.NewRawTask("t", func(ctx context.Context, _ *gworker.RawJob) error {
					began <- struct{}{}
					select {
					case <-ctx.Done():
					case <-end:
					}
					return errors.New("no such host")
				})}
				w := testworker.Start(t, config)
				waitFor(t, w.Events, func(event.WorkerStarted) bool { return true })
				for _, reason := range []string{"", "withdrawn"} {
					id := testworker.Add(t, client, gworker.JobSpec{Task: "t"}).ID
					<-began
					result, err := w.Client().Cancel(t.Context(), id, reason)
					if err != nil || result.State != gworker.CancelRequested {
						t.Fatalf("%+v, %v", result, err)
					}
					if !heard {
						end <- struct{}{}
					}
					waitFor(t, w.Events, func(e event.JobPermanentlyFailed) bool { return e.Job.ID == id })
					found, err := client.JobHistory(t.Context(), id)
					if err != nil || len(found.Events) != 2 || found.Events[0].Kind != history.ActionCancel || found.Events[1].Kind != history.Cancelled {
						t.Errorf("reason %q: %+v, %v", reason, found.Events, err)
					}
				}
			})
		}
	}
}
