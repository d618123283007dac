package listener_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// patience is how long a test waits for what must happen.
const patience = time.Minute

var errStop = errors.New("the test is over")

func connector(url string, changes ...func(*pgx.ConnConfig)) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		config.RuntimeParams["application_name"] = "listener under test"
		for _, change := range changes {
			change(config)
		}
		return pgx.ConnectConfig(ctx, config)
	}
}

// running is a listener that runs until the test ends.
type running struct {
	t       *testing.T
	batches chan listener.Batch
	stop    func() error // waits for Run and returns its error
}

// start runs a listener whose consumer hands each batch to the test.
func start(t *testing.T, l *listener.Listener) *running {
	t.Helper()
	batches := make(chan listener.Batch)
	r := startWith(t, l, func(ctx context.Context, b listener.Batch) {
		select {
		case batches <- b:
		case <-ctx.Done():
		}
	})
	r.batches = batches
	return r
}

func startWith(t *testing.T, l *listener.Listener, handle func(context.Context, listener.Batch)) *running {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	result := make(chan error, 1)
	go func() { result <- l.Run(ctx, handle) }()
	stop := sync.OnceValue(func() error {
		cancel(errStop)
		return receive(t, result)
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v at the end of its context", err)
		}
	})
	return &running{t: t, stop: stop}
}

// batch waits for the next batch.
func (r *running) batch() listener.Batch {
	r.t.Helper()
	return receive(r.t, r.batches)
}

// gap waits for the next batch, which must be nothing but a gap.
func (r *running) gap() {
	r.t.Helper()
	if b := r.batch(); !b.Gap || len(b.Notifications) != 0 || b.Dropped != 0 {
		r.t.Fatalf("got %+v, want just a gap", b)
	}
}

// payloads collects n notifications, without a gap between.
func (r *running) payloads(n int) []string {
	r.t.Helper()
	var got []string
	for len(got) < n {
		b := r.batch()
		if b.Gap {
			r.t.Fatalf("a gap after %q: %+v", got, b)
		}
		for _, n := range b.Notifications {
			got = append(got, n.Payload)
		}
	}
	return got
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func newListener(t *testing.T, config listener.Config) *listener.Listener {
	t.Helper()
	l, err := listener.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func notify(t *testing.T, pool *pgxpool.Pool, channel, payload string) {
	t.Helper()
	if _, err := pool.Exec(context.Background(), "select pg_notify($1, $2)", channel, payload); err != nil {
		t.Fatal(err)
	}
}

// killListeners ends the sessions of the listeners under test.
func killListeners(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	tag, err := pool.Exec(context.Background(), `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and application_name = 'listener under test'`)
	if err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%d sessions ended, %v", tag.RowsAffected(), err)
	}
}
