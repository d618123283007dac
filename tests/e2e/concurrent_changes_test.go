package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// removesUnlocked is remove_job as other runtimes have it, and as gworker had it: it
// deletes what is not locked, and retires what is there in the next statement.
const removesUnlocked = `
	create or replace function graphile_worker.remove_job(job_key text)
	returns graphile_worker._private_jobs language plpgsql strict as $gw$
	declare
		removed graphile_worker._private_jobs;
	begin
		delete from graphile_worker._private_jobs j
		where j.key = remove_job.job_key and (j.locked_at is null or j.locked_at < now() - interval '4 hours')
		returning j.* into removed;
		if found then
			return removed;
		end if;
		update graphile_worker._private_jobs j set key = null, attempts = j.max_attempts
		where j.key = remove_job.job_key returning j.* into removed;
		return removed;
	end $gw$`

// rowRace is one job that runs, the only one in its database.
type rowRace struct {
	t      *testing.T
	pool   *pgxpool.Pool
	client *gworker.Client
	id     int64
	lock   time.Time
}

const racingWorker = "gworker_race"

func newRowRace(t *testing.T, pool *pgxpool.Pool) *rowRace {
	t.Helper()
	exec(t, pool, "delete from graphile_worker._private_jobs")
	r := &rowRace{t: t, pool: pool, client: newClient(t, pool)}
	r.id = add(t, r.client, gworker.JobSpec{Task: "x", Key: "k", Queue: "q"}).ID
	exec(t, pool, `update graphile_worker._private_jobs set locked_by = $1, locked_at = now(), attempts = 1`, racingWorker)
	exec(t, pool, `update graphile_worker._private_job_queues set locked_by = $1, locked_at = now()`, racingWorker)
	scan(t, pool, `select locked_at from graphile_worker._private_jobs`, nil, &r.lock)
	return r
}

// row prints the job: attempts, key, holder, task and last error.
func (r *rowRace) row() string {
	var row string
	scan(r.t, r.pool, `select coalesce((select concat_ws(' ', attempts, coalesce(key, '-'), coalesce(locked_by, '-'), task_identifier, last_error)
		from graphile_worker.jobs where id = $1), 'gone')`, []any{r.id}, &row)
	return row
}

// ends are the ways in which a run ends, by what the row is afterwards.
var ends = map[string]struct {
	end  func(r *rowRace, tx pgx.Tx) error
	left string
}{
	"complete": {left: "gone", end: func(r *rowRace, tx pgx.Tx) error {
		ids, err := dbgen.New(tx).CompleteJobs(r.t.Context(), dbgen.CompleteJobsParams{
			Ids: []int64{r.id}, Attempts: []int32{1}, LockedAts: []time.Time{r.lock}, WorkerID: racingWorker,
		})
		return oneRow(len(ids), err)
	}},
	"fail": {left: "1 k - x no", end: func(r *rowRace, tx pgx.Tx) error {
		rows, err := dbgen.New(tx).FailJobs(r.t.Context(), dbgen.FailJobsParams{
			Ids: []int64{r.id}, Attempts: []int32{1}, LockedAts: []time.Time{r.lock}, WorkerID: racingWorker,
			Errors: []string{"no"}, Delays: []float64{-1}, Finals: []bool{false}, Payloads: []string{""},
		})
		return oneRow(len(rows), err)
	}},
	"return": {left: "0 k - x", end: func(r *rowRace, tx pgx.Tx) error {
		rows, err := dbgen.New(tx).ReturnJobs(r.t.Context(), dbgen.ReturnJobsParams{
			Ids: []int64{r.id}, Attempts: []int32{1}, LockedAts: []time.Time{r.lock}, WorkerID: racingWorker,
			Keys: []string{"k"}, Delays: []float64{0}, Payloads: []string{""},
		})
		return oneRow(len(rows), err)
	}},
	"recover": {left: "0 k - x Job recovered after worker interruption", end: func(r *rowRace, tx pgx.Tx) error {
		var n int
		err := tx.QueryRow(r.t.Context(), `select graphile_worker.recover_dead_worker_jobs(array[$1])`, racingWorker).Scan(&n)
		return oneRow(n, err)
	}},
}

func oneRow(n int, err error) error {
	if err == nil && n != 1 {
		err = fmt.Errorf("%d rows", n)
	}
	return err
}

// changes are what a client may do to the job meanwhile.
var changes = map[string]struct {
	do func(r *rowRace, ctx context.Context, c changingClient, q *dbgen.Queries) (string, error)
	// after is the answer and the row where the end of the run came first, ""
	// for the row as that end left it; afterComplete is the answer where that
	// end was completion.
	after, afterRow, afterComplete string
	// before is the answer where the change came first, and beforeRow the row once
	// the run has failed, or was returned or recovered; "" for what is usual.
	before    string
	beforeRow map[string]string
}{
	"RemoveJob": {
		do: func(r *rowRace, ctx context.Context, c changingClient, _ *dbgen.Queries) (string, error) {
			row, err := c.RemoveJob(ctx, "k")
			if errors.Is(err, gworker.ErrJobNotFound) {
				return "not found", nil
			}
			if err != nil || row.ID != r.id {
				return "", fmt.Errorf("removed %+v: %w", row, err)
			}
			return fmt.Sprintf("removed key=%q by=%q", row.Key, row.LockedBy), nil
		},
		after: `removed key="k" by=""`, afterRow: "gone", afterComplete: "not found",
		before: `removed key="" by="gworker_race"`,
		beforeRow: map[string]string{
			"fail": "25 - - x no", "return": "25 - - x", "recover": "25 - - x Job recovered after worker interruption",
		},
	},
	"AddJob": {do: addAgain, after: "the same job", afterRow: "0 k - other", afterComplete: "a new job", before: "a new job", beforeRow: map[string]string{
		"fail": "25 - - x no", "return": "25 - - x", "recover": "25 - - x Job recovered after worker interruption",
	}},
	"AddJobs": {do: func(r *rowRace, ctx context.Context, c changingClient, _ *dbgen.Queries) (string, error) {
		rows, err := c.AddJobs(ctx, []gworker.JobSpec{{Task: "other", Key: "k"}, {Task: "other"}})
		if err != nil || len(rows) != 2 {
			return "", fmt.Errorf("added %+v: %w", rows, err)
		}
		return sameJob(r, rows[0]), nil
	}, after: "the same job", afterRow: "0 k - other", afterComplete: "a new job", before: "a new job", beforeRow: map[string]string{
		"fail": "25 - - x no", "return": "25 - - x", "recover": "25 - - x Job recovered after worker interruption",
	}},
	"CompleteJobs": {do: func(r *rowRace, ctx context.Context, c changingClient, _ *dbgen.Queries) (string, error) {
		return changed(c.CompleteJobs(ctx, []int64{r.id}))
	}, after: "locked", afterComplete: "locked", before: "locked"},
	"PermanentlyFailJobs": {do: func(r *rowRace, ctx context.Context, c changingClient, _ *dbgen.Queries) (string, error) {
		return changed(c.PermanentlyFailJobs(ctx, []int64{r.id}, "by hand"))
	}, after: "locked", afterComplete: "locked", before: "locked"},
	"RescheduleJobs": {do: func(r *rowRace, ctx context.Context, c changingClient, _ *dbgen.Queries) (string, error) {
		return changed(c.RescheduleJobs(ctx, []int64{r.id}, gworker.RescheduleOptions{RunAt: new(time.Time), Attempts: new(int)}))
	}, after: "locked", afterComplete: "locked", before: "locked"},
	"Cancel": {do: func(r *rowRace, ctx context.Context, _ changingClient, q *dbgen.Queries) (string, error) {
		result, err := cancel.InTx(ctx, q, r.id, "not wanted")
		return string(result.State), err
	}, after: "failed", afterRow: "25 k - x not wanted", afterComplete: "not_found", before: "requested", beforeRow: map[string]string{
		"fail": "25 - - x not wanted", "return": "25 - - x not wanted", "recover": "25 - - x Job recovered after worker interruption",
	}},
}

type changingClient interface {
	gworker.JobAdder
	CompleteJobs(context.Context, []int64) (gworker.ChangedJobs, error)
	PermanentlyFailJobs(context.Context, []int64, string) (gworker.ChangedJobs, error)
	RescheduleJobs(context.Context, []int64, gworker.RescheduleOptions) (gworker.ChangedJobs, error)
}

func addAgain(r *rowRace, ctx context.Context, c changingClient, _ *dbgen.Queries) (string, error) {
	row, err := c.AddJob(ctx, gworker.JobSpec{Task: "other", Key: "k"})
	if err != nil {
		return "", err
	}
	return sameJob(r, row), nil
}

func sameJob(r *rowRace, row *gworker.JobRow) string {
	if row.ID == r.id {
		return "the same job"
	}
	return "a new job"
}

func changed(c gworker.ChangedJobs, err error) (string, error) {
	if len(c.Untouched) == 1 {
		return string(c.Untouched[0].Reason), err
	}
	return fmt.Sprintf("changed %d", len(c.Jobs)), err
}

// meanwhile has second begin while the transaction of first is open, and first
// commit once second waits for it or is done.
func (r *rowRace) meanwhile(first func(pgx.Tx) error, second func(pgx.Tx) error) {
	r.t.Helper()
	ctx := r.t.Context()
	tx, err := r.pool.Begin(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := first(tx); err != nil {
		r.t.Fatalf("first: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		done <- pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error { return second(tx) })
	}()
	for end, waits := time.Now().Add(time.Minute), false; !waits && len(done) == 0; time.Sleep(time.Millisecond) {
		scan(r.t, r.pool, `select exists (select from pg_stat_activity
			where wait_event_type = 'Lock' and datname = current_database())`, nil, &waits)
		if time.Now().After(end) {
			r.t.Fatal("the second neither waits nor ends")
		}
	}
	if err := tx.Commit(ctx); err != nil {
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatalf("second: %v", err)
	}
}

// Whatever is done to a job while the end of its run is being written, or the other
// way round, is done to the job as it is then and not as it was.
func TestChangesWhileARunEnds(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	t.Run("RemoveJob of another runtime", func(t *testing.T) {
		t.Parallel()
		pool := migrated(t)
		exec(t, pool, removesUnlocked)
		testChangeWhileARunEnds(t, pool, "RemoveJob")
	})
	for name := range changes {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			testChangeWhileARunEnds(t, migrated(t), name)
		})
	}
}

func testChangeWhileARunEnds(t *testing.T, pool *pgxpool.Pool, name string) {
	statements, c := statement.NewSet(statement.Options{}), changes[name]
	for end, e := range ends {
		arrange := func(t *testing.T) (*rowRace, func(pgx.Tx) error, *string) {
			r, answer := newRowRace(t, pool), ""
			return r, func(tx pgx.Tx) (err error) {
				answer, err = c.do(r, t.Context(), r.client.WithTx(tx), statements.On(tx))
				return err
			}, &answer
		}
		t.Run(end+" comes first", func(t *testing.T) {
			r, change, answer := arrange(t)
			r.meanwhile(func(tx pgx.Tx) error { return e.end(r, tx) }, change)
			want, wantRow := c.after, c.afterRow
			if end == "complete" {
				want, wantRow = c.afterComplete, "gone"
			} else if wantRow == "" {
				wantRow = e.left
			}
			if row := r.row(); *answer != want || row != wantRow {
				t.Errorf("the answer is %q and the row %q, want %q and %q", *answer, row, want, wantRow)
			}
		})
		t.Run(end+" comes second", func(t *testing.T) {
			r, change, answer := arrange(t)
			r.meanwhile(change, func(tx pgx.Tx) error { return e.end(r, tx) })
			wantRow := e.left
			if row, ok := c.beforeRow[end]; ok {
				wantRow = row
			}
			if row := r.row(); *answer != c.before || row != wantRow {
				t.Errorf("the answer is %q and the row %q, want %q and %q", *answer, row, c.before, wantRow)
			}
		})
	}
}

// Who held the row has given the key to another job.
func TestRemoveJobWhileItsKeyChangesHands(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for name, remove := range map[string]func(r *rowRace, tx pgx.Tx) error{
		"client": func(r *rowRace, tx pgx.Tx) error {
			_, err := r.client.WithTx(tx).RemoveJob(r.t.Context(), "k")
			return err
		},
		"function": func(r *rowRace, tx pgx.Tx) error {
			_, err := tx.Exec(r.t.Context(), "select graphile_worker.remove_job('k')")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			r := newRowRace(t, migrated(t))
			r.meanwhile(func(tx pgx.Tx) error {
				_, err := r.client.WithTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "next", Key: "k"})
				return err
			}, func(tx pgx.Tx) error { return remove(r, tx) })
			var keyed int
			scan(t, r.pool, "select count(key) from graphile_worker._private_jobs", nil, &keyed)
			if n := jobCount(t, r.pool); n != 1 || keyed != 0 || r.row() != "25 - gworker_race x" {
				t.Errorf("left: %d jobs, %d of them with a key; %s", n, keyed, r.row())
			}
		})
	}
}

// A job that waits is replaced by one of another task while it is to be cancelled.
func TestCancelWhileTheTaskChanges(t *testing.T) {
	t.Parallel()
	r := newRowRace(t, migrated(t))
	exec(t, r.pool, `update graphile_worker._private_jobs set locked_by = null, locked_at = null`)
	statements := statement.NewSet(statement.Options{})
	var result cancel.Result
	r.meanwhile(func(tx pgx.Tx) error {
		_, err := r.client.WithTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "x2", Key: "k"})
		return err
	}, func(tx pgx.Tx) (err error) {
		result, err = cancel.InTx(t.Context(), statements.On(tx), r.id, "not wanted")
		return err
	})
	if row := r.row(); result.State != cancel.Failed || row != "25 k - x2 not wanted" {
		t.Errorf("the state is %q and the row %q", result.State, row)
	}
}

// Functions of before revision 19 return nothing where they added nothing.
func TestAddJobWhereTheFunctionAddsNothing(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	exec(t, pool, `create or replace function graphile_worker.add_job(identifier text, payload json default null,
		queue_name text default null, run_at timestamptz default null, max_attempts int default null, job_key text default null,
		priority int default null, flags text[] default null, job_key_mode text default 'replace')
		returns graphile_worker._private_jobs language sql as 'select null::graphile_worker._private_jobs'`)
	client := newClient(t, pool)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := client.WithTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "x", Key: "k"})
		return err
	})
	if !errors.Is(err, gworker.ErrKeyBusy) {
		t.Errorf("the error is %v", err)
	}
}
