package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

func TestManyRunsAtOnce(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		make    func(fixture)
		applied []int
	}{
		"on nothing":       {func(fixture) {}, fromTo(1, 20)},
		"on Node's 10":     {fixture.at10, fromTo(11, 20)},
		"on Node's 20":     {fixture.at20Node, fromTo(19, 20)},
		"on an old ledger": {func(f fixture) { f.at10(); f.sql(`alter table graphile_worker.migrations drop column breaking`) }, fromTo(11, 20)},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			test.make(f)
			applied := f.upTogether(8)
			f.wantCatalog("revision-20-rust.txt")
			wantEqual(t, "applied by all together", test.applied, applied)
			f.wantOwnAdding()
		})
	}
}

// end is that of a run.
type end struct {
	result migrate.Result
	err    error
}

// upAside begins a run with a pool of its own.
func (f fixture) upAside(ctx context.Context) <-chan end {
	f.t.Helper()
	ended := make(chan end, 1)
	pool := newPool(f.t, f.url)
	go func() {
		result, err := migrate.Up(ctx, pool, migrate.Options{})
		ended <- end{result, err}
	}()
	return ended
}

// upTogether runs n times at once and returns what was applied, by whom ever.
func (f fixture) upTogether(n int) []int {
	f.t.Helper()
	var (
		mu      sync.Mutex
		applied []int
		wg      sync.WaitGroup
		begin   = make(chan struct{})
	)
	for range n {
		pool := newPool(f.t, f.url)
		wg.Go(func() {
			<-begin
			result, err := migrate.Up(f.t.Context(), pool, migrate.Options{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.t.Error(err)
			}
			applied = append(applied, ids(result.Applied)...)
			if result.Ledger.Newest != 20 {
				f.t.Errorf("one ended at revision %d", result.Ledger.Newest)
			}
		})
	}
	close(begin)
	wg.Wait()
	slices.Sort(applied)
	return applied
}

// Other runtimes take no lock of ours. Each file is a transaction there, and
// one that comes too late for its row in the ledger goes on with the next.
func TestRacesWithAnotherRuntime(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			conn := f.connect()
			var wg sync.WaitGroup
			wg.Go(func() { f.installAsStranger(conn) })
			f.upTogether(1 + round)
			wg.Wait()
			f.wantCatalog("revision-20-rust.txt")
			wantEqual(t, "ledger", fromTo(1, 20), ids(f.inspect().Ledger.Revisions))
			f.wantOwnAdding()
		})
	}
}

func (f fixture) installAsStranger(conn *pgx.Conn) {
	names, err := fs.Glob(db.Migrations, "*.sql")
	if err != nil {
		f.t.Error(err)
		return
	}
	for _, name := range names {
		text, err := fs.ReadFile(db.Migrations, name)
		if err != nil {
			f.t.Error(err)
			return
		}
		for {
			// Without arguments, so all statements are one transaction.
			_, err = conn.Exec(f.t.Context(), string(text))
			var answer *pgconn.PgError
			if !errors.As(err, &answer) || answer.Code != "40P01" {
				break
			}
		}
		var answer *pgconn.PgError
		if errors.As(err, &answer) && slices.Contains([]string{"23505", "42P06", "42P07", "42710"}, answer.Code) {
			continue
		}
		if err != nil {
			f.t.Errorf("%s: %v", name, err)
			return
		}
	}
}

func (f fixture) connect() *pgx.Conn {
	f.t.Helper()
	conn, err := pgx.Connect(f.t.Context(), f.url)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			f.t.Error(err)
		}
	})
	return conn
}

func TestUpWaitsForAnotherRuntime(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		start, foreign int // the revision that is there, and the one that another process is making
		commit         bool
	}{
		"5 is committed":   {4, 5, true},
		"5 is taken back":  {4, 5, false},
		"11 is committed":  {10, 11, true},
		"11 is taken back": {10, 11, false},
		"19 is committed":  {18, 19, true},
		"20 is taken back": {19, 20, false},
		"1 is committed":   {0, 1, true},
		"1 is taken back":  {0, 1, false},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			f.install(test.start)
			files, err := fs.Glob(db.Migrations, "*.sql")
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(files)
			text, err := fs.ReadFile(db.Migrations, files[test.foreign])
			if err != nil {
				t.Fatal(err)
			}
			foreign := f.connect()
			if _, err := foreign.Exec(t.Context(), "begin; "+string(text)); err != nil {
				t.Fatal(err)
			}

			ended := f.upAside(t.Context())
			f.waitForWaiters(t.Context(), 1)
			first, finish := test.foreign, "rollback"
			if test.commit {
				finish = "commit"
				if test.foreign < 19 { // those after it run again, and do no harm
					first++
				}
			}
			if _, err := foreign.Exec(t.Context(), finish); err != nil {
				t.Fatal(err)
			}
			up := <-ended
			if up.err != nil {
				t.Fatal(up.err)
			}
			wantEqual(t, "applied", fromTo(first, 20), ids(up.result.Applied))
			f.wantCatalog("revision-20-rust.txt")
		})
	}
}

// Who replaces a function that another replaces at the moment waits, and meets
// an error which has no SQLSTATE of its own.
func TestFunctionsReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	var sample testdb.Sample
	for what, test := range map[string]struct {
		rows    string // that come with the functions
		applied []int
	}{
		"by whoever":      {"", []int{19, 20}},
		"by Rust for its": {"insert into graphile_worker.migrations (id) values (21), (22)", nil},
	} {
		t.Run(what, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			f := newFixture(t, "")
			if test.rows == "" {
				f.at20Node()
			} else {
				f.at20Rust()
				f.sql(`drop function graphile_worker.worker_heartbeat`)
			}
			foreign := f.connect()
			_, err := foreign.Exec(t.Context(), `begin;
				create or replace function graphile_worker.add_jobs(
					specs graphile_worker.job_spec[], job_key_preserve_run_at boolean default false
				) returns setof graphile_worker._private_jobs language plpgsql as $gw$ begin end $gw$;
				create or replace function graphile_worker.worker_heartbeat(worker_id text, metadata json default null)
				returns void language sql as $gw$ select $gw$;`+test.rows)
			if err != nil {
				t.Fatal(err)
			}
			ended := f.upAside(t.Context())
			f.waitForWaiters(t.Context(), 1)
			if _, err := foreign.Exec(t.Context(), "commit"); err != nil {
				t.Fatal(err)
			}
			up := <-ended
			if up.err != nil {
				t.Fatal(up.err)
			}
			wantEqual(t, "applied", test.applied, ids(up.result.Applied))
			f.wantCatalog("revision-20-rust.txt")
		})
	}
}

// While another runs, a run waits, and gives up when it is told to.
func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.install(4)
	foreign := f.connect()
	if _, err := foreign.Exec(t.Context(), "begin; insert into graphile_worker.migrations (id) values (5)"); err != nil {
		t.Fatal(err)
	}
	reason := errors.New("we have no time")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	// The first holds our lock and waits for the row, the second for our lock,
	// outside of a transaction.
	first := f.upAside(ctx)
	f.waitForWaiters(t.Context(), 1)
	second := f.upAside(ctx)
	f.waitForSessions(t.Context(), 1, "state = 'idle' and query = 'rollback'")
	cancel(reason)
	for what, ended := range map[string]<-chan end{"the first": first, "the second": second} {
		select {
		case up := <-ended:
			if !errors.Is(up.err, context.Canceled) && !errors.Is(up.err, reason) {
				t.Errorf("%s ended with %v", what, up.err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s goes on", what)
		}
	}
	if _, err := foreign.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	// Nothing of them is left in the way.
	wantEqual(t, "applied", fromTo(5, 20), ids(f.up().Applied))
	f.wantCatalog("revision-20-rust.txt")
}

// What is done when a run is cancelled is in its result, and the next goes on.
func TestCancelOnTheWay(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	f.at10()
	foreign := f.connect()
	if _, err := foreign.Exec(t.Context(), "begin; insert into graphile_worker.migrations (id) values (15)"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := f.upAside(ctx)
	f.waitForWaiters(t.Context(), 1)
	cancel()
	up := <-ended
	if !errors.Is(up.err, context.Canceled) {
		t.Errorf("ended with %v", up.err)
	}
	wantEqual(t, "applied", fromTo(11, 14), ids(up.result.Applied))
	wantEqual(t, "newest", 14, up.result.Ledger.Newest)
	if _, err := foreign.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "applied next", fromTo(15, 20), ids(f.up().Applied))
}

// A process that takes rows of the ledger without making the revisions must not block a run
// forever. Here the tables of revision 1 exist and its row does not.
func TestNoProgress(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t, "")
	f.install(1)
	f.sql(`delete from graphile_worker.migrations`)
	before := f.everything()
	_, _, err := f.tryUp()
	wantEqual(t, "SQLSTATE", "42P07", wantCause(t, err).Code)
	wantContains(t, err.Error(), "another process seems to be migrating too, but no further")
	wantContains(t, err.Error(), "applying revision 1")
	wantEqual(t, "schema", before, f.everything())
}
