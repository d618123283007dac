package interop_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/tests/interop/node"
)

// holderID is the worker that holds jobs, and forAnHour how long it does unless it
// is hurried: longer than a configuration may say, so that no time decides a test.
const (
	holderID  = "gworker_0123456789abcdef01"
	forAnHour = time.Hour
)

// holder is a worker's scheduler that holds jobs of the task "held", as long as
// their handlers wait, or, with no time to hold them for, locks them.
type holder struct {
	*scheduler.Scheduler
	db      *database
	started chan int64
	ended   chan int64
	release chan struct{}
	open    func() // lets the handlers return
	stop    func()
}

// hold starts a holder, which runs nothing until it is woken. All jobs fail.
func hold(db *database, hold time.Duration, slots int) *holder {
	db.t.Helper()
	h := &holder{db: db, started: make(chan int64, 1000), ended: make(chan int64, 1000), release: make(chan struct{})}
	h.open = sync.OnceFunc(func() { close(h.release) })
	set := statement.NewSet(statement.Options{})
	config := scheduler.Config{
		Database: set.Bind(testdb.Pool(db.t, db.url), nil), WorkerID: holderID, Concurrency: slots, PollInterval: time.Hour,
		StatementTimeout: deadline, AbortTimeout: deadline,
		Hold: scheduler.Hold{Time: hold, Statements: set, Connect: func(ctx context.Context) (*pgx.Conn, error) {
			return pgx.Connect(ctx, db.url)
		}},
		Handlers: map[string]scheduler.Handler{"held": func(_ context.Context, j *job.Claimed) job.Outcome {
			if string(j.Payload) == `"warm"` {
				return job.Outcome{Kind: job.Completed} // the first job of a task is not held
			}
			h.started <- j.ID
			<-h.release
			if string(j.Payload) == `"done"` {
				return job.Outcome{Kind: job.Completed}
			}
			return job.Outcome{Kind: job.Failed, Err: errors.New("too late")}
		}},
		Events: eventstream.New(func(e event.Event) {
			switch e := e.(type) {
			case event.JobCompleted:
				h.ended <- e.Job.ID
			case event.JobFailed:
				h.ended <- e.Job.ID
			case event.JobPermanentlyFailed:
				h.ended <- e.Job.ID
			}
		}),
	}
	db.exec(`select graphile_worker.add_job('held', '"warm"')`)
	h.Scheduler = scheduler.New(config)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		h.open()
		if err := <-done; err != nil {
			db.t.Errorf("the holder: %v", err)
		}
	})
	db.t.Cleanup(h.stop)
	next(db.t, h.ended)
	return h
}

// next receives a job's id.
func next(t *testing.T, from <-chan int64) int64 {
	t.Helper()
	select {
	case id := <-from:
		return id
	case <-time.After(deadline):
		t.Fatal("a job has not run, or not ended")
		return 0
	}
}

// take has the holder take so many jobs, and returns when they run.
func (h *holder) take(jobs int) {
	h.Wake()
	for range jobs {
		next(h.db.t, h.started)
	}
	if locks := h.locks(); len(h.Held()) == jobs && locks != 0 || len(h.Held()) == 0 && locks != jobs {
		h.db.t.Fatalf("%d of %d jobs are held, and %d locked", len(h.Held()), jobs, locks)
	}
}

// end lets the handlers return, waits until the ends of so many jobs are stored,
// and stops the holder.
func (h *holder) end(jobs int) {
	h.open()
	for range jobs {
		next(h.db.t, h.ended)
	}
	h.stop()
}

func (h *holder) locks() int {
	return value[int](h.db, `select count(*)::int from graphile_worker._private_jobs where locked_by = $1`, holderID)
}

// Node's workers, and gworkers of other processes, pass a held job and its queue
// over, and run everything else.
func TestHeldJobsArePassedOver(t *testing.T) {
	forEachSide(t, func(t *testing.T, s side) {
		for _, localQueue := range []int{0, 4} {
			if localQueue > 0 && s.isNode() {
				continue // its runOnce ends before its local queue is empty
			}
			db := gworkerDatabase(t)
			db.joinedBy(s)
			h := hold(db, forAnHour, 2)
			db.exec(`select graphile_worker.add_job('held', '"done"', queue_name => queue, priority => -1, job_key => key)
				from (values ('q', 'in q'), (null, 'free')) v (queue, key)`)
			h.take(2)
			// Of another task, which the holder does not have.
			db.exec(`select graphile_worker.add_job('other', queue_name => queue, job_key => key)
				from (values ('q', 'next of q'), ('other', 'in other'), (null, 'free, too')) v (queue, key)`)
			before := db.jobs()
			other := order{ConnectionString: db.url, Tasks: []string{"held", "other"}, Concurrency: 3, Once: true, LocalQueue: localQueue}
			s.startWorker(t, other, newJournal()).wait(t)
			keys := func() []string {
				return values[string](db, "select job ->> 'key' from interop.runs order by 1")
			}
			if diff := gocmp.Diff([]string{"free, too", "in other"}, keys()); diff != "" {
				t.Errorf("%s has run while jobs were held (-want +got):\n%s", s, diff)
			}
			if diff := gocmp.Diff(before[:3], db.jobs()); diff != "" || len(h.Held()) != 2 {
				t.Errorf("%s has left (-want +got), with %d jobs held:\n%s", s, len(h.Held()), diff)
			}
			h.end(2)
			s.startWorker(t, other, newJournal()).wait(t)
			if diff := gocmp.Diff([]string{"free, too", "in other", "next of q"}, keys()); diff != "" || len(db.jobs()) != 0 {
				t.Errorf("%s has run, when the queue was free (-want +got), and left %v:\n%s", s, db.jobs(), diff)
			}
		}
	})
}

// heldChange is a change to the job with a key of its own, in the words of each
// side. SQL is what no client has a method for, or what all call.
type heldChange struct {
	key  string
	add  *spec
	all  bool // by addJobs
	call *adminCall
	sql  string
}

// heldChanges are those that wait for a held job.
func heldChanges() []heldChange {
	add := func(key, mode string) heldChange {
		return heldChange{key: key, add: &spec{
			Task: "new", Key: key, KeyMode: mode, RunAt: longAgo.Add(time.Hour), MaxAttempts: 3,
		}}
	}
	many := add("add_jobs", "")
	many.all = true
	return []heldChange{
		add("replace", "replace"), add("preserve_run_at", "preserve_run_at"), add("unsafe_dedupe", "unsafe_dedupe"), many,
		{key: "complete", call: &adminCall{Method: "completeJobs"}},
		{key: "fail", call: &adminCall{Method: "permanentlyFailJobs", Reason: "no"}},
		{key: "reschedule", call: &adminCall{Method: "rescheduleJobs", Options: &adminOptions{RunAt: new(longAgo), Priority: new(7)}}},
		{key: "remove", sql: "select graphile_worker.remove_job('remove')"},
	}
}

// begin starts the change of job id, and returns a function that waits for its end
// and tells which jobs it touched, if it tells.
func (c heldChange) begin(db *database, s side, id int64) (end func() []int64) {
	t := db.t
	t.Helper()
	switch {
	case c.sql != "":
		return inBackground(t, func() ([]int64, error) {
			conn, err := pgx.Connect(t.Context(), db.url)
			if err != nil {
				return nil, err
			}
			_, err = conn.Exec(t.Context(), c.sql)
			return nil, errors.Join(err, conn.Close(context.Background()))
		})
	case s.isNode():
		o, script := order{ConnectionString: db.url, Package: s.version.Package}, "client.mjs"
		switch {
		case c.call != nil:
			call := *c.call
			call.IDs, script = []int64{id}, "admin.mjs"
			o.Administer = []adminCall{call}
		case c.all:
			o.Calls = []call{{AddJobs: []spec{*c.add}}}
		default:
			o.Calls = []call{{AddJob: c.add}}
		}
		j := newJournal()
		p := start(t, s.String()+" "+c.key, node.Require(t).Command(t.Context(), t, script), o, j)
		return func() (touched []int64) {
			p.wait(t)
			for _, e := range j.events {
				if e.Event == "administered" {
					touched = append(touched, e.IDs...)
				}
			}
			return touched
		}
	}
	return inBackground(t, func() ([]int64, error) {
		client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url})
		if err != nil {
			return nil, err
		}
		defer client.Close()
		var changed gworker.ChangedJobs
		switch {
		case c.all:
			_, err = client.AddJobs(t.Context(), []gworker.JobSpec{c.add.gworker()})
		case c.add != nil:
			_, err = client.AddJob(t.Context(), c.add.gworker())
		case c.call.Method == "completeJobs":
			changed, err = client.CompleteJobs(t.Context(), []int64{id})
		case c.call.Method == "permanentlyFailJobs":
			changed, err = client.PermanentlyFailJobs(t.Context(), []int64{id}, c.call.Reason)
		default:
			changed, err = client.RescheduleJobs(t.Context(), []int64{id}, gworker.RescheduleOptions{
				RunAt: c.call.Options.RunAt, Priority: c.call.Options.Priority,
			})
		}
		var touched []int64
		for _, j := range changed.Jobs {
			touched = append(touched, j.ID)
		}
		return touched, err
	})
}

func inBackground(t *testing.T, do func() ([]int64, error)) (end func() []int64) {
	type result struct {
		touched []int64
		err     error
	}
	done := make(chan result, 1)
	go func() {
		touched, err := do()
		done <- result{touched, err}
	}()
	return func() []int64 {
		t.Helper()
		r := <-done
		if r.err != nil {
			t.Error(r.err)
		}
		return r.touched
	}
}

// awaitWaiting waits until so many sessions wait for what a held claim holds.
func (db *database) awaitWaiting(sessions int) {
	db.t.Helper()
	for give := time.Now().Add(deadline); ; {
		n := value[int](db, `select count(*)::int from pg_stat_activity w
			where w.datname = current_database() and w.wait_event_type = 'Lock' and exists (
				select from pg_stat_activity h where h.state = 'idle in transaction' and h.pid = any (pg_blocking_pids(w.pid)))`)
		if n == sessions {
			return
		}
		if time.Now().After(give) {
			db.t.Fatalf("%d sessions wait for held jobs, want %d", n, sessions)
		}
	}
}

// What changes a held job waits until it is spilled, and then does what it does to
// a job that is locked.
func TestChangesToHeldJobsWaitForTheSpill(t *testing.T) {
	node.Require(t)
	for _, s := range []side{gworkerSide, nodeSide(node.V18)} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			var during, after [2][]storedJob // of locked and held jobs
			for i, held := range []time.Duration{0, forAnHour} {
				db := gworkerDatabase(t)
				// Adds of a task that is new wait for each other.
				db.exec("insert into graphile_worker._private_tasks (identifier) values ('new')")
				changes := heldChanges()
				h := hold(db, held, len(changes))
				for n, c := range changes {
					db.exec(`select graphile_worker.add_job('held', queue_name => case when $2 % 2 = 0 then 'queue ' || $2 end,
						job_key => $1, run_at => $3, priority => $2::int)`, c.key, n, longAgo)
				}
				h.take(len(changes))
				var ends []func() []int64
				for _, c := range changes {
					id := value[int64](db, "select id from graphile_worker._private_jobs where key = $1", c.key)
					ends = append(ends, c.begin(db, s, id))
				}
				if held != 0 {
					db.awaitWaiting(len(changes))
					if h.locks() != 0 {
						t.Errorf("the jobs were locked before their claim was to end")
					}
					h.ReleaseEarly(func(*job.Claimed) bool { return true }) // of one claim or two
				}
				for n, end := range ends {
					if touched := end(); len(touched) > 0 {
						t.Errorf("%s has touched %v", changes[n].key, touched)
					}
				}
				during[i] = db.sortedJobs()
				h.end(len(changes))
				after[i] = db.sortedJobs()
				for n := range after[i] {
					after[i][n].RunAt = longAgo // of retries
				}
			}
			if diff := gocmp.Diff(during[0], during[1]); diff != "" {
				t.Errorf("the jobs while they run (-locked +held):\n%s", diff)
			}
			if diff := gocmp.Diff(after[0], after[1]); diff != "" {
				t.Errorf("the jobs afterwards (-locked +held):\n%s", diff)
			}
			if len(during[0]) != len(heldChanges())+3 {
				t.Errorf("three adds make new jobs, and here are: %+v", during[0])
			}
		})
	}
}

// sortedJobs is jobs for adds that came in no order.
func (db *database) sortedJobs() []storedJob {
	db.t.Helper()
	jobs := db.jobs()
	slices.SortStableFunc(jobs, func(a, b storedJob) int {
		return cmp.Or(strings.Compare(a.Task, b.Task), cmp.Compare(a.Priority, b.Priority), strings.Compare(*cmp.Or(a.Key, new(string)), *cmp.Or(b.Key, new(string))))
	})
	return jobs
}
