package announce_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/announce"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/store"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

const patience = 60 * time.Second

func set() *statement.Set { return statement.NewSet(statement.Options{}) }

// ear hears what is announced.
type ear struct {
	conn  *pgx.Conn
	calls int
	jobs  int
}

func listen(t *testing.T, url string) *ear {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), `listen "jobs:insert"`); err != nil {
		t.Fatal(err)
	}
	return &ear{conn: conn}
}

// until listens until so many jobs have been announced.
func (e *ear) until(t *testing.T, jobs int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for e.jobs < jobs {
		heard, err := e.conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatalf("%d of %d jobs were announced: %v", e.jobs, jobs, err)
		}
		var payload struct{ Count int }
		if err := json.Unmarshal([]byte(heard.Payload), &payload); err != nil {
			t.Fatal(err)
		}
		e.calls++
		e.jobs += payload.Count
	}
	if e.jobs > jobs {
		t.Fatalf("%d jobs were announced, %d were added", e.jobs, jobs)
	}
}

// TestQuietAddNotifiesInItsOwnCommit: nothing is left to do afterwards.
func TestQuietAddNotifiesInItsOwnCommit(t *testing.T) {
	url := testdb.Migrated(t)
	ear := listen(t, url)
	a := announce.New(testdb.Pool(t, url), set())
	defer a.Close(context.Background())
	if !a.Begin() {
		t.Fatal("the first add of a client is not to notify by itself")
	}
	if a.Begin() {
		t.Error("an add that began while another was in flight notifies by itself")
	}
	a.End(0)
	a.End(0)
	// An announcer that cannot send anything: what is heard came with the commit.
	closed := testdb.Pool(t, url)
	closed.Close()
	mute := announce.New(closed, set())
	defer mute.Close(t.Context())
	inserter := store.NewInserter(set().On(a.DB()), mute)
	if _, err := inserter.Add(t.Context(), store.Spec{Task: "x", Payload: []byte("{}"), KeyMode: "replace"}); err != nil {
		t.Fatal(err)
	}
	ear.until(t, 1)
}

// TestBurst: every job of a burst is announced, in far fewer notifications than
// there are adds, even if all connections of the pool are in use.
func TestBurst(t *testing.T) {
	const adders, each = 20, 50
	url := testdb.Migrated(t)
	ear := listen(t, url)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 3
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	a := announce.New(pool, set())
	inserter := store.NewInserter(set().On(a.DB()), a)
	var done sync.WaitGroup
	for i := range adders {
		done.Go(func() {
			for n := range each {
				spec := store.Spec{Task: "x", Payload: []byte("{}"), KeyMode: "replace"}
				switch n % 4 {
				case 1:
					spec.Key = fmt.Sprintf("%d %d", i, n)
				case 2:
					spec.Key, spec.KeyMode = fmt.Sprintf("%d %d", i, n), "unsafe_dedupe"
				}
				var err error
				if n%4 == 3 {
					_, err = inserter.AddAll(context.Background(), []store.Spec{spec}, false)
				} else {
					_, err = inserter.Add(context.Background(), spec)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	a.Close(t.Context())
	ear.until(t, adders*each)
	if ear.calls > adders*each/3 {
		t.Errorf("%d notifications for %d adds", ear.calls, adders*each)
	}
	t.Logf("%d notifications for %d adds", ear.calls, adders*each)
}

// TestNotificationFollowsTheCommit: whoever hears it sees the job.
func TestNotificationFollowsTheCommit(t *testing.T) {
	url := testdb.Migrated(t)
	pool, ear := testdb.Pool(t, url), listen(t, url)
	a := announce.New(pool, set())
	defer a.Close(context.Background())
	inserter := store.NewInserter(set().On(a.DB()), a)
	for i := 1; i <= 50; i++ {
		if _, err := inserter.Add(t.Context(), store.Spec{Task: "x", Payload: []byte("{}"), KeyMode: "replace"}); err != nil {
			t.Fatal(err)
		}
	}
	ear.until(t, 50)
	// What an existing job of unsafe_dedupe does is nothing to tell.
	spec := store.Spec{Task: "x", Payload: []byte("{}"), Key: "k", KeyMode: "unsafe_dedupe"}
	for range 5 {
		if _, err := inserter.Add(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	a.Close(t.Context())
	ear.until(t, 51)
	if _, err := pool.Exec(t.Context(), `select pg_notify('jobs:insert', '{"count":1}')`); err != nil {
		t.Fatal(err)
	}
	ear.until(t, 52) // and not more
}

// TestAnnouncementIsTriedAgain, on another connection, after the first was lost.
func TestAnnouncementIsTriedAgain(t *testing.T) {
	url := testdb.Migrated(t)
	ear := listen(t, url)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var pid int
	if err := pool.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	a := announce.New(pool, set())
	conn, err := pool.Acquire(t.Context()) // so that the announcement waits for the loss
	if err != nil {
		t.Fatal(err)
	}
	a.Begin()
	a.End(3)
	if _, err := ear.conn.Exec(t.Context(), "select pg_terminate_backend($1)", pid); err != nil {
		t.Fatal(err)
	}
	conn.Release()
	ear.until(t, 3)
	a.Close(t.Context())
}

// TestCloseDoesNotHangOnAClosedPool, and no goroutine is left.
func TestCloseDoesNotHangOnAClosedPool(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	a := announce.New(pool, set())
	pool.Close()
	a.Begin()
	a.End(1)
	a.Close(t.Context())
	if !a.Begin() {
		t.Error("an add after Close does not notify by itself")
	}
	a.End(0)
}
