package interop_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/testdb"
)

// Taking away the locks of a worker finds none of the jobs that it holds, and
// waits for nothing.
func TestForceUnlockOfAHolder(t *testing.T) {
	forEachSide(t, func(t *testing.T, s side) {
		db := gworkerDatabase(t)
		db.joinedBy(s)
		h := hold(db, forAnHour, 1)
		db.exec(`select graphile_worker.add_job('held', '"done"', queue_name => 'q', priority => 1)`)
		h.take(1)
		before := db.jobs()
		s.administer(t, db.url, []adminCall{{Method: "forceUnlockWorkers", Workers: []string{holderID}}})
		if diff := gocmp.Diff(before, db.jobs()); diff != "" || len(h.Held()) != 1 {
			t.Errorf("%d jobs are held, and changed (-before +after):\n%s", len(h.Held()), diff)
		}
		s.runOnce(t, db.url, "held")
		if n := len(db.seen()); n != 0 {
			t.Errorf("%s has run %d held jobs", s, n)
		}
		h.end(1)
		if left := db.jobs(); len(left) != 0 {
			t.Errorf("left are %+v", left)
		}
	})
}

// pg_dump runs while jobs are held, and saves them as jobs that wait. Where it
// is restored, they run.
func TestDumpWhileJobsAreHeld(t *testing.T) {
	db := gworkerDatabase(t)
	h := hold(db, forAnHour, 1)
	db.exec(`select graphile_worker.add_job('held', '"done"', queue_name => 'q', job_key => 'the held one')`)
	h.take(1)
	programs := value[string](db, "select setting from pg_config where name = 'BINDIR'")
	if _, err := exec.LookPath(filepath.Join(programs, "pg_dump")); err != nil {
		t.Skipf("no pg_dump next to the server: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	var dump, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "pg_dump"), "--no-owner", "--dbname", db.url)
	cmd.Stdout, cmd.Stderr = &dump, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, &errs)
	}
	if len(h.Held()) != 1 || h.locks() != 0 {
		t.Error("pg_dump has ended the claim")
	}
	h.end(1)
	copied := &database{t: t, url: testdb.Empty(t)}
	cmd = exec.CommandContext(ctx, filepath.Join(programs, "psql"), "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "--dbname", copied.url)
	cmd.Stdin, cmd.Stderr = &dump, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("psql: %v\n%s", err, &errs)
	}
	copied.conn = copied.connect()
	gworkerSide.runOnce(t, copied.url, "held")
	if seen := copied.seen(); len(seen) != 1 || seen[0].Key != "the held one" || seen[0].Attempts != 1 {
		t.Errorf("where the dump was restored there ran %+v", seen)
	}
}

// A transaction with an old snapshot, and locks as pg_dump takes them, hinders no
// held job. It sees the jobs as they were, and what it wants to change of them is
// refused by the server, as with locked ones.
func TestHeldJobsDuringALongTransaction(t *testing.T) {
	db := gworkerDatabase(t)
	const jobs = 300
	h := hold(db, forAnHour, 10)
	db.exec(`select graphile_worker.add_job('held', '"done"', job_key => 'key ' || n, queue_name => case when n % 3 = 0 then 'q' || n % 7 end)
		from generate_series(1, $1) n`, jobs)
	old, err := db.connect().BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		t.Helper()
		if err := old.QueryRow(t.Context(), "select count(*) from graphile_worker._private_jobs where locked_at is null").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := old.Exec(t.Context(), "lock table graphile_worker._private_jobs, graphile_worker._private_job_queues, graphile_worker._private_tasks in access share mode"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != jobs {
		t.Fatalf("%d jobs", n)
	}
	h.Wake()
	h.open()
	ended := map[int64]bool{}
	for len(ended) < jobs {
		next(t, h.started)
		ended[next(t, h.ended)] = true
	}
	if left := len(db.jobs()); left != 0 || count() != jobs {
		t.Errorf("%d jobs are left, and the old transaction sees %d", left, count())
	}
	_, err = old.Exec(t.Context(), "select graphile_worker.add_job('new', job_key => 'key 1')")
	if answer := new(pgconn.PgError); !errors.As(err, &answer) || answer.Code != "40001" {
		t.Errorf("the old transaction replaces a job that is done: %v", err)
	}
	if err := old.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	h.stop()
	if n := h.locks(); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}
