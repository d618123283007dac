package interop_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// forEachOld tells a story of a move to gworker, from Node and from Rust, on the schema
// that the old runtime has made.
func forEachOld(t *testing.T, story func(t *testing.T, old side, db *database)) {
	for _, old := range []side{nodeSide(node.V18), rustSide(rust.V14)} {
		t.Run("from "+old.String(), func(t *testing.T) {
			t.Parallel()
			old.require(t)
			db := emptyDatabase(t)
			if err := db.migrateAs(old); err != nil {
				t.Fatalf("%s: %v", old, err)
			}
			story(t, old, db)
		})
	}
}

// A load adds numbered jobs all the time.
type load struct {
	cancel context.CancelFunc
	done   chan error
	added  int // once done
}

// startLoad begins to add jobs of the tasks in turn, a third of them to two queues.
func startLoad(t *testing.T, db *database, tasks ...string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, done: make(chan error, 1)}
	conn := db.connect()
	go func() {
		for ctx.Err() == nil {
			// Not by ctx: what was sent counts.
			_, err := conn.Exec(context.WithoutCancel(ctx), `
				select graphile_worker.add_job($1, json_build_object('n', $2::int), queue_name => case when $2 % 3 = 0 then 'queue ' || $2 % 2 end)`,
				tasks[l.added%len(tasks)], l.added)
			if err != nil {
				l.done <- err
				return
			}
			l.added++
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
		l.done <- nil
	}()
	t.Cleanup(cancel)
	return l
}

// stop returns how many jobs were added.
func (l *load) stop(t *testing.T) int {
	t.Helper()
	l.cancel()
	if err := <-l.done; err != nil {
		t.Fatalf("adding jobs: %v", err)
	}
	return l.added
}

// awaitTrue waits until a query says so.
func (db *database) awaitTrue(what, sql string, args ...any) {
	db.t.Helper()
	ctx, cancel := context.WithTimeout(db.t.Context(), deadline)
	defer cancel()
	for !value[bool](db, sql, args...) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			db.t.Fatalf("waiting for %s: pending are\n%s", what, strings.Join(values[string](db, pendingJobs+" limit 10"), "\n"))
		}
	}
}

// wantEachOnce asserts that the jobs of the numbers below count have run once each, and
// no others. Those that a stopped worker left locked may have run before.
func (db *database) wantEachOnce(count int, unlocked ...int) {
	db.t.Helper()
	for _, wrong := range values[string](db, `
		select concat_ws(' ', 'job', n, 'ran', coalesce(runs, 0), 'times,', unfinished, 'unfinished')
		from generate_series(0, $1 - 1) n full join (
			select (job -> 'payload' ->> 'n')::int as n, count(*) as runs, count(*) filter (where ended_at is null) as unfinished
			from interop.runs group by 1
		) r using (n)
		where coalesce(runs, 0) <> 1 and not (n = any($2) and runs = 2) or unfinished > 0 or n not between 0 and $1 - 1
		order by n limit 10`, count, append([]int{}, unlocked...)) {
		db.t.Errorf("of %d jobs: %s", count, wrong)
	}
}

// wantQueuesSerial asserts that the runs of each queue were one at a time.
func (db *database) wantQueuesSerial() {
	db.t.Helper()
	for _, pair := range values[string](db, `
		select concat_ws(' ', a.queue, a.worker, a.job, 'and', b.worker, b.job)
		from interop.runs a join interop.runs b on b.queue = a.queue and b.id > a.id
		where a.queue <> '' and a.started_at < b.ended_at and b.started_at < a.ended_at limit 5`) {
		db.t.Errorf("two jobs of one queue ran at the same time: %s", pair)
	}
}

// One schema: under load, a task after the other moves over. First gworker runs it as
// well, then the old worker no longer has it.
func TestMovingTaskByTask(t *testing.T) {
	forEachOld(t, func(t *testing.T, old side, db *database) {
		tasks := []string{"work", "fast", "slow"}
		load := startLoad(t, db, tasks...)
		j := newJournal()
		start := func(s side, tasks ...string) *process {
			return s.startWorker(t, order{ConnectionString: db.url, Tasks: tasks, Concurrency: 3}, j)
		}
		const has = "select count(*) >= 5 from interop.runs where worker = $1 and job ->> 'task' = $2"
		before := start(old, tasks...)
		for _, task := range tasks {
			db.awaitTrue(old.String()+" to run "+task, has, old.String(), task)
		}
		var ours *process
		var unlocked []int
		for i, task := range tasks {
			next := start(gworkerSide, tasks[:i+1]...)
			db.awaitTrue("gworker to run "+task, has, gworkerSide.String(), task)
			if ours != nil {
				ours.stop(t)
			}
			ours = next
			before.stop(t)
			unlocked = append(unlocked, db.unlockStopped(old)...)
			if rest := tasks[i+1:]; len(rest) > 0 {
				before = start(old, rest...)
			}
			last := value[int64](db, "select coalesce(max(id), 0) from interop.runs")
			db.awaitTrue("gworker to run "+task+" alone", has+" and id > $3", gworkerSide.String(), task, last)
			if n := value[int](db, "select count(*) from interop.runs where worker = $1 and job ->> 'task' = $2 and id > $3",
				old.String(), task, last); n > 0 {
				t.Errorf("%s has run %d jobs of %s since it lost the task", old, n, task)
			}
		}
		added := load.stop(t)
		db.awaitTrue("the rest", "select not exists (select from graphile_worker._private_jobs)")
		ours.stop(t)
		db.wantEachOnce(added, unlocked...)
		db.wantQueuesSerial()
	})
}

// unlockStopped frees what the stopped workers of the old side left locked, and returns
// the numbers of these jobs. As seen, Node does not wait for the statements that complete
// its last jobs: stopped in good order, it leaves some of them locked, with their queues.
func (db *database) unlockStopped(old side) (unlocked []int) {
	db.t.Helper()
	unlocked = values[int](db, `
		select (payload ->> 'n')::int from graphile_worker._private_jobs where locked_by is not null and locked_by !~ '^gworker'`)
	if len(unlocked) == 0 {
		return nil
	}
	if db.t.Logf("%s was stopped, and left locked the jobs %v", old, unlocked); !old.isNode() {
		db.t.Errorf("%s left jobs locked", old)
	}
	db.exec(`
		select graphile_worker.force_unlock_workers(array(
			select distinct locked_by from graphile_worker._private_jobs where locked_by !~ '^gworker'))`)
	return unlocked
}

// movingSQL is the statement of the documentation.
func movingSQL(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, "../../docs/from-node.md"), "```sql\nwith moved as")
	statement, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/from-node.md has no statement that moves jobs")
	}
	return "with moved as" + statement
}

// Two schemas: gworker begins on one of its own, with new jobs, while the old worker goes
// on with its; then what waits there moves over.
func TestMovingFromSchemaToSchema(t *testing.T) {
	forEachOld(t, func(t *testing.T, old side, db *database) {
		name, err := schema.Parse("gworker")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := migrate.Up(t.Context(), db.pool(), migrate.Options{Schema: name}); err != nil {
			t.Fatal(err)
		}
		load := startLoad(t, db, "work")
		j := newJournal()
		o := order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 3}
		before := old.startWorker(t, o, j)
		o.Schema = "gworker"
		ours := gworkerSide.startWorker(t, o, j)
		const has = "select count(*) >= 20 from interop.runs where worker = $1"
		db.awaitTrue(old.String()+" to run jobs", has, old.String())
		const oursOnly, later = 20, 30
		for n := range oursOnly {
			db.exec("select gworker.add_job('work', json_build_object('n', -1 - $1::int))", n)
		}
		db.awaitTrue("gworker to run jobs of its schema", has, gworkerSide.String())
		if n := value[int](db, "select count(*) from interop.runs where ((job -> 'payload' ->> 'n')::int < 0) <> (worker = $1)", gworkerSide.String()); n > 0 {
			t.Errorf("%d jobs ran on the other schema's worker", n)
		}

		// Jobs that wait for tomorrow move, with all that they are, while others run.
		for n := range later {
			db.exec(`select graphile_worker.add_job('work', json_build_object('n', 1000000 + $1::int), case when $1 % 2 = 0 then 'q' end,
				now() + interval '1 day', 9, 'later ' || $1, 5, array['f' || $1])`, n)
		}
		db.exec("update graphile_worker._private_jobs set attempts = 2 where key = 'later 3'")
		const facts = `select concat_ws('|', payload, run_at, max_attempts - attempts, key, priority, flags, job_queue_id is null)
			from %s._private_jobs where key like 'later%%' order by key`
		waiting := values[string](db, fmt.Sprintf(facts, "graphile_worker"))
		db.exec(movingSQL(t))
		if moved := values[string](db, fmt.Sprintf(facts, "gworker")); len(moved) != later || !slices.Equal(waiting, moved) {
			t.Errorf("moved were %v, want %v", moved, waiting)
		}
		db.awaitTrue("new jobs of the old schema", "select count(*) > 0 from graphile_worker._private_jobs")
		added := load.stop(t)
		db.exec(movingSQL(t))
		db.awaitTrue("the old schema to be empty", "select not exists (select from graphile_worker._private_jobs)")
		before.stop(t)
		db.exec("update gworker._private_jobs set run_at = now() where key like 'later%'")
		db.awaitTrue("the new one to be empty", "select not exists (select from gworker._private_jobs)")
		ours.stop(t)
		db.exec(`update interop.runs set job = jsonb_set(job, '{payload,n}', to_jsonb($1::int + n - case when n < 0 then -$2::int else 1000000 end))
			from (select id as run, (job -> 'payload' ->> 'n')::int as n from interop.runs) r where run = id and (n < 0 or n >= 1000000)`, added, oursOnly+later)
		db.wantEachOnce(added + oursOnly + later)
	})
}

// SQL as the boundary: the application adds jobs by the functions of the schema, in its
// own transactions, and does not notice who runs them.
func TestMovingBehindSQL(t *testing.T) {
	forEachOld(t, func(t *testing.T, old side, db *database) {
		db.exec("create table orders (n int primary key)")
		db.exec(`create function order_placed() returns trigger language plpgsql as $$
			begin
				perform graphile_worker.add_job('work', json_build_object('n', new.n), job_key => 'order ' || new.n);
				return new;
			end $$`)
		db.exec("create trigger placed after insert on orders for each row execute function order_placed()")
		const orders = 60
		place := func(from, to int) {
			t.Helper()
			for n := from; n < to; n++ {
				err := pgx.BeginFunc(t.Context(), db.conn, func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), "insert into orders values ($1)", n); err != nil {
						return err
					}
					if n%5 == 4 {
						return errCancelled
					}
					return nil
				})
				if err != nil && !errors.Is(err, errCancelled) {
					t.Fatal(err)
				}
			}
		}
		j := newJournal()
		o := order{ConnectionString: db.url, Tasks: []string{"work"}, Concurrency: 2}
		const done = "select count(*) = $1 from interop.runs where not exists (select from graphile_worker._private_jobs)"
		before := old.startWorker(t, o, j)
		place(0, orders/3)
		db.awaitTrue(old.String()+" to run them", done, orders/3*4/5)
		before.stop(t)
		place(orders/3, orders*2/3) // nobody runs them yet
		ours := gworkerSide.startWorker(t, o, j)
		place(orders*2/3, orders)
		db.awaitTrue("gworker to run the rest", done, orders*4/5)
		ours.stop(t)
		if wrong := values[int](db, `
			select n from orders full join (select (job -> 'payload' ->> 'n')::int as n, count(*) as runs from interop.runs group by 1) r using (n)
			where orders.n is null or runs is distinct from 1`); len(wrong) > 0 {
			t.Errorf("the orders %v were not handled once each", wrong)
		}
		if left := db.jobs(); len(left) > 0 {
			t.Errorf("jobs are left: %+v", left)
		}
	})
}

var errCancelled = errors.New("the customer has left")
