package cron_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// patience is how long a test waits for what should happen at once.
const patience = time.Minute

// clock is a clock that a test moves.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[chan time.Time]time.Time // with the time at which each fires
	set    chan struct{}                // closed when a timer is set
}

func newClock(now time.Time) *clock {
	return &clock{now: now, timers: map[chan time.Time]time.Time{}, set: make(chan struct{})}
}

func (c *clock) clock() cron.Clock {
	return cron.Clock{
		Now: func() time.Time {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.now
		},
		Timer: func(d time.Duration) (<-chan time.Time, func()) {
			c.mu.Lock()
			defer c.mu.Unlock()
			fired := make(chan time.Time, 1)
			c.timers[fired] = c.now.Add(d)
			close(c.set)
			c.set = make(chan struct{})
			return fired, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.timers, fired)
			}
		},
	}
}

// waiting returns once a timer is waited for that is due at by or later, and returns its
// time.
func (c *clock) waiting(t *testing.T, by time.Time) {
	t.Helper()
	timeout := time.After(patience)
	for {
		c.mu.Lock()
		set := c.set
		for _, due := range c.timers {
			if !due.Before(by) {
				c.mu.Unlock()
				return
			}
		}
		c.mu.Unlock()
		select {
		case <-set:
		case <-timeout:
			t.Fatalf("nobody waits for a time after %s", by)
		}
	}
}

// moveTo sets the clock and fires the timers that are due; early fires all.
func (c *clock) moveTo(now time.Time, early bool) {
	c.fire(now, func(due time.Time) bool { return early || !due.After(now) })
}

// setTo sets the clock, which no timer goes by, five seconds after it was set last: the
// timers that are due by then fire, whatever the clock says.
func (c *clock) setTo(now time.Time) {
	c.mu.Lock()
	by := c.now.Add(5 * time.Second)
	c.mu.Unlock()
	c.fire(now, func(due time.Time) bool { return !due.After(by) })
}

func (c *clock) fire(now time.Time, fires func(due time.Time) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
	// The longest first: who waits for several sees that all have fired.
	timers := slices.SortedFunc(maps.Keys(c.timers), func(a, b chan time.Time) int { return c.timers[b].Compare(c.timers[a]) })
	for _, fired := range timers {
		if fires(c.timers[fired]) {
			delete(c.timers, fired)
			fired <- now
		}
	}
}

// watched is a loop that runs in a test.
type watched struct {
	*clock
	loop   *cron.Loop
	pool   *pgxpool.Pool
	events chan event.Event
	cancel func()
	stop   func() // cancels, and waits for the end
}

// startLoop runs a loop on the pool with the items of a crontab.
func startLoop(t *testing.T, pool *pgxpool.Pool, now time.Time, crontab string, change ...func(*cron.Loop)) *watched {
	t.Helper()
	items, errs := cron.Parse(crontab)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	w := &watched{clock: newClock(now), pool: pool, events: make(chan event.Event, 1000)}
	w.loop = &cron.Loop{
		WorkerID: "test", Queries: statement.NewSet(statement.Options{}).On(pool), Clock: w.clock.clock(),
		Events: eventstream.New(func(e event.Event) { w.events <- e }), Items: cron.NewSet(items),
	}
	for _, f := range change {
		f(w.loop)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.loop.Run(ctx)
	}()
	w.cancel = cancel
	w.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("the loop does not end with its context")
		}
	})
	t.Cleanup(w.stop)
	return w
}

// await returns the next event of a type.
func await[E event.Event](t *testing.T, w *watched) E {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-w.events:
			if found, ok := e.(E); ok {
				return found
			}
		case <-timeout:
			var none E
			t.Fatalf("there was no %T", none)
		}
	}
}

// jobs lists the jobs as "task minute", backfilled ones with a "+", in the order
// of insertion.
func jobs(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select t.identifier, j.run_at, j.payload->'_cron'->>'ts', (j.payload->'_cron'->>'backfilled')::boolean
		from graphile_worker._private_jobs j join graphile_worker._private_tasks t on t.id = j.task_id
		order by j.id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var task, ts string
		var runAt time.Time
		var backfilled bool
		if err := rows.Scan(&task, &runAt, &ts, &backfilled); err != nil {
			t.Fatal(err)
		}
		if runAt.UTC().Format("2006-01-02T15:04:05.000Z") != ts {
			t.Errorf("a job of %s runs at %s", ts, runAt)
		}
		line := task + " " + strings.TrimSuffix(ts[11:], ":00.000Z")
		if backfilled {
			line += "+"
		}
		found = append(found, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(found, ", ")
}

func sorted(list string) string {
	parts := strings.Split(list, ", ")
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// known lists _private_known_crontabs.
func known(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var text string
	err := pool.QueryRow(t.Context(), `
		select coalesce(string_agg(identifier || ' ' || to_char(known_since at time zone 'UTC', 'HH24:MI:SS') || ' '
			|| coalesce(to_char(last_execution at time zone 'UTC', 'HH24:MI:SS'), '-'), ', ' order by identifier), '')
		from graphile_worker._private_known_crontabs`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// clockTime is a time of the day of all these tests, such as "10:00:30".
func clockTime(text string) time.Time {
	when, err := time.Parse("2006-01-02 15:04:05", "2026-05-04 "+text)
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return when
}
