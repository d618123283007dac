package recovery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// fixture is a database with the schema, and the events that were emitted.
type fixture struct {
	*pgxpool.Pool
	t          *testing.T
	url        string
	statements *statement.Set
	stream     *eventstream.Stream
	options    recovery.SweepOptions

	mu     sync.Mutex
	events []event.Event
	change chan struct{}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	url := testdb.Migrated(t)
	f := &fixture{
		Pool: testdb.Pool(t, url), t: t, url: url, statements: statement.NewSet(statement.Options{}),
		change: make(chan struct{}),
		options: recovery.SweepOptions{
			StaleAfter: time.Minute, ResilientMultiplier: 3, ResilientFlags: []string{"infrastructure_resilient"},
		},
	}
	f.stream = eventstream.New(func(e event.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.events = append(f.events, e)
		close(f.change)
		f.change = make(chan struct{})
	})
	return f
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	if _, err := f.Exec(f.t.Context(), sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

// one returns the single text that a query finds.
func (f *fixture) one(sql string, args ...any) (found string) {
	f.t.Helper()
	if err := f.QueryRow(f.t.Context(), sql, args...).Scan(&found); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return found
}

// register makes a registration whose heartbeat is some time ago.
func (f *fixture) register(id string, ago time.Duration, metadata string) {
	f.t.Helper()
	f.exec(`insert into graphile_worker._private_workers (id, last_heartbeat_at, metadata)
		values ($1, now() - make_interval(secs => $2), $3)`, id, ago.Seconds(), metadata)
}

// locked adds a job that a holder has had for some time, and returns its id.
func (f *fixture) locked(holder string, ago time.Duration, spec string) (id int64) {
	f.t.Helper()
	if spec != "" {
		spec = ", " + spec
	}
	if err := f.QueryRow(f.t.Context(), "select id from graphile_worker.add_job('x', run_at => '2020-01-01'"+spec+")").Scan(&id); err != nil {
		f.t.Fatal(err)
	}
	f.exec(`with j as (
			update graphile_worker._private_jobs
			set locked_by = $2, locked_at = now() - make_interval(secs => $3), attempts = attempts + 1
			where id = $1 returning *
		)
		update graphile_worker._private_job_queues q set locked_by = j.locked_by, locked_at = j.locked_at
		from j where q.id = j.job_queue_id`, id, holder, ago.Seconds())
	return id
}

// row prints what recovery may change of a job.
func (f *fixture) row(id int64) string {
	f.t.Helper()
	return f.one(`select concat_ws('|', attempts, coalesce(locked_by, '-'), coalesce(last_error, '-'),
		case when run_at > now() then 'later' else 'now' end) from graphile_worker._private_jobs where id = $1`, id)
}

func (f *fixture) wantRow(id int64, want string) {
	f.t.Helper()
	if got := f.row(id); got != want {
		f.t.Errorf("job %d is %q, want %q", id, got, want)
	}
}

func (f *fixture) sweep() recovery.SweepResult {
	f.t.Helper()
	result, err := recovery.Sweep(f.t.Context(), f.Pool, f.statements, f.stream, f.options)
	if err != nil {
		f.t.Fatal(err)
	}
	return result
}

// dead lists whom a sweep took for dead.
func dead(result recovery.SweepResult) string {
	ids := []string{}
	for _, w := range result.Workers {
		ids = append(ids, w.ID)
	}
	return fmt.Sprint(ids)
}

// waitFor returns the first event of a type.
func waitFor[E event.Event](f *fixture, ok func(E) bool) E {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for {
		f.mu.Lock()
		seen, change := append([]event.Event(nil), f.events...), f.change
		f.mu.Unlock()
		for _, e := range seen {
			if typed, is := e.(E); is && (ok == nil || ok(typed)) {
				return typed
			}
		}
		select {
		case <-change:
		case <-ctx.Done():
			var zero E
			f.t.Fatalf("no %T; seen %+v", zero, seen)
		}
	}
}
