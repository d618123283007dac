package listener_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/testdb"
)

func TestGapAfterReconnect(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	states := make(chan listener.State, 100)
	r := start(t, newListener(t, listener.Config{
		Connect: connector(url), Channels: []string{"c"}, OnState: func(s listener.State) { states <- s },
	}))
	want := func(kind listener.StateKind) listener.State {
		t.Helper()
		s := receive(t, states)
		if s.Kind != kind {
			t.Fatalf("state is %v (%v), want %v", s.Kind, s.Err, kind)
		}
		return s
	}
	r.gap()
	want(listener.Connecting)
	want(listener.Connected)
	for range 2 {
		killListeners(t, pool)
		r.gap()
		notify(t, pool, "c", "after")
		if got := r.payloads(1); got[0] != "after" {
			t.Errorf("got %q", got)
		}
		if s := want(listener.Lost); s.Err == nil || s.RetryIn <= 0 {
			t.Errorf("lost says %+v", s)
		}
		want(listener.Connecting)
		want(listener.Connected)
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if len(states) != 0 {
		t.Errorf("the end of the context told %v", <-states)
	}
}

// waits is a clock that stands still and notes how long it should have gone.
type waits struct {
	now   atomic.Int64
	slept chan time.Duration
}

func (w *waits) install(l *listener.Listener) {
	w.slept = make(chan time.Duration, 100)
	l.SetTime(
		func() time.Time { return time.Unix(0, w.now.Load()) },
		func(_ context.Context, d time.Duration) error { w.slept <- d; return nil },
	)
}

// check receives n waits and compares them with the sequence from its begin.
func (w *waits) check(t *testing.T, n int) {
	t.Helper()
	middle := 50 * time.Millisecond
	for i := range n {
		d := receive(t, w.slept)
		low, high := middle*69/100, min(middle*131/100, time.Minute)
		if d < low || d > high {
			t.Errorf("wait %d is %s, want %s to %s", i, d, low, high)
		}
		middle = min(time.Duration(float64(middle)*2.71828), time.Minute)
	}
}

func TestWaitsGrowUntilConnected(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	refused := errors.New("refused")
	var tries atomic.Int32
	connect := connector(url)
	var clock waits
	l := newListener(t, listener.Config{
		Channels: []string{"c"},
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			if tries.Add(1) <= 12 {
				return nil, refused
			}
			return connect(ctx)
		},
		OnState: func(s listener.State) {
			if s.Kind == listener.Lost && tries.Load() <= 12 && !errors.Is(s.Err, refused) {
				t.Errorf("lost with %v", s.Err)
			}
		},
	})
	clock.install(l)
	r := start(t, l)
	r.gap()
	clock.check(t, 12)
	clock.now.Add(int64(time.Hour)) // a good connection
	killListeners(t, pool)
	r.gap()
	clock.check(t, 1)
	notify(t, pool, "c", "here")
	r.payloads(1)
}

// A server that takes connections and drops them is asked less and less.
func TestWaitsGrowWhileFlapping(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	var clock waits
	var connections atomic.Int32
	l := newListener(t, listener.Config{
		Channels: []string{"c"},
		Connect:  connector(url),
		OnState: func(s listener.State) {
			if s.Kind == listener.Connected && connections.Add(1) <= 5 {
				clock.now.Add(int64(time.Millisecond))
				killListeners(t, pool)
			}
		},
	})
	clock.install(l)
	startWith(t, l, func(context.Context, listener.Batch) {})
	clock.check(t, 5)
}

func TestSilentDeathIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	network := newProxy(t, url)
	l := newListener(t, listener.Config{
		Connect: connector(url, network.through), Channels: []string{"c"}, PingInterval: 20 * time.Millisecond,
	})
	l.SetAnswerTimeout(500 * time.Millisecond)
	r := start(t, l)
	r.gap()
	notify(t, pool, "c", "before")
	r.payloads(1)
	network.cut()
	notify(t, pool, "c", "lost")
	r.gap()
	notify(t, pool, "c", "after")
	if got := r.payloads(1); got[0] != "after" {
		t.Errorf("got %q", got)
	}
}
