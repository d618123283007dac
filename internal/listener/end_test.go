package listener_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/wait"
)

func TestEndOfContext(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	url := testdb.Empty(t)
	ended := func(t *testing.T, r *running) {
		t.Helper()
		if err := r.stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	}
	ignore := func(context.Context, listener.Batch) {}
	entered := func() (chan struct{}, func()) {
		c := make(chan struct{}, 1)
		return c, func() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	t.Run("connecting", func(t *testing.T) {
		at, enter := entered()
		r := startWith(t, newListener(t, listener.Config{
			Channels: []string{"c"},
			Connect: func(ctx context.Context) (*pgx.Conn, error) {
				enter()
				<-ctx.Done()
				return nil, ctx.Err()
			},
		}), ignore)
		receive(t, at)
		ended(t, r)
	})
	t.Run("waiting for the next try", func(t *testing.T) {
		at, enter := entered()
		l := newListener(t, listener.Config{
			Channels: []string{"c"},
			Connect:  func(context.Context) (*pgx.Conn, error) { return nil, nil },
		})
		l.SetTime(time.Now, func(ctx context.Context, _ time.Duration) error {
			enter()
			return wait.Sleep(ctx, time.Hour)
		})
		r := startWith(t, l, ignore)
		receive(t, at)
		ended(t, r)
	})
	t.Run("pinging", func(t *testing.T) {
		at, enter := entered()
		network := newProxy(t, url)
		l := newListener(t, listener.Config{
			Channels:     []string{"c"},
			PingInterval: time.Millisecond,
			Connect: connector(url, network.through, tap(wiretap{beforeWrite: func(b []byte) {
				if bytes.Contains(b, ping) {
					network.cut()
					enter()
				}
			}})),
		})
		l.SetAnswerTimeout(time.Hour)
		r := startWith(t, l, ignore)
		receive(t, at)
		ended(t, r)
	})
	t.Run("handling", func(t *testing.T) {
		at, enter := entered()
		handled := false
		r := startWith(t, newListener(t, listener.Config{Channels: []string{"c"}, Connect: connector(url)}),
			func(ctx context.Context, _ listener.Batch) {
				enter()
				<-ctx.Done()
				handled = errors.Is(context.Cause(ctx), errStop)
			})
		receive(t, at)
		ended(t, r)
		if !handled {
			t.Error("Run did not wait for the consumer")
		}
	})
	t.Run("before Run", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errStop)
		l := newListener(t, listener.Config{Channels: []string{"c"}, Connect: connector(url)})
		if err := l.Run(ctx, ignore); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestRunTwice(t *testing.T) {
	l := newListener(t, listener.Config{Channels: []string{"c"}, Connect: connector(testdb.Empty(t))})
	for range 2 { // one after the other is fine
		r := start(t, l)
		r.gap()
		if err := l.Run(context.Background(), func(context.Context, listener.Batch) {}); !errors.Is(err, listener.ErrRunning) {
			t.Errorf("the second Run returned %v", err)
		}
		_ = r.stop()
	}
	if err := l.Run(context.Background(), nil); err == nil {
		t.Error("Run took nil for a consumer")
	}
}
