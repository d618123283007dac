package listener_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/testdb"
)

func TestDelivers(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	channels := []string{
		"plain", "jobs:insert", "Upper Case", `a "quoted" name`, "semi;colon -- '", "größe",
		strings.Repeat("x", 63),
	}
	var lastWords []byte
	var closed bool
	r := start(t, newListener(t, listener.Config{Channels: channels, Connect: connector(url, tap(wiretap{
		beforeWrite: func(b []byte) { lastWords = bytes.Clone(b) },
		beforeClose: func() { closed = true },
	}))}))
	r.gap()
	for i, channel := range channels {
		notify(t, pool, channel, fmt.Sprint(i))
		want := []listener.Notification{{Channel: channel, Payload: fmt.Sprint(i)}}
		if b := r.batch(); b.Gap || b.Dropped != 0 || !slices.Equal(b.Notifications, want) {
			t.Errorf("got %+v, want %+v", b, want)
		}
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if !bytes.Equal(lastWords, []byte{'X', 0, 0, 0, 4}) || !closed {
		t.Errorf("closed: %t, after %q", closed, lastWords)
	}
}

// TestTakes: what is taken as it arrives is in no batch.
func TestTakes(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	taken := make(chan listener.Notification, 10)
	r := start(t, newListener(t, listener.Config{
		Channels: []string{"a"}, Connect: connector(url),
		Take: func(n listener.Notification) bool {
			if n.Payload != "taken" {
				return false
			}
			taken <- n
			return true
		},
	}))
	r.gap()
	for range 3 {
		notify(t, pool, "a", "taken")
	}
	notify(t, pool, "a", "left")
	if b := r.batch(); b.Gap || !slices.Equal(b.Notifications, []listener.Notification{{Channel: "a", Payload: "left"}}) {
		t.Errorf("got %+v", b)
	}
	for range 3 {
		if n := receive(t, taken); n.Channel != "a" {
			t.Errorf("took %+v", n)
		}
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestSlowConsumer(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	read := make(chan struct{})
	allRead := sync.OnceFunc(func() { close(read) })
	entered, release := make(chan listener.Batch, 10), make(chan struct{})
	l := newListener(t, listener.Config{
		Channels: []string{"a", "b"},
		Buffer:   3,
		Connect: connector(url, tap(wiretap{beforeRead: func(soFar []byte) {
			if bytes.Contains(soFar, []byte("the end")) {
				allRead()
			}
		}})),
	})
	startWith(t, l, func(ctx context.Context, b listener.Batch) {
		entered <- b
		select {
		case <-release:
		case <-ctx.Done():
		}
	})
	receive(t, entered)
	// The consumer is busy with the first gap from here on.
	for range 3 {
		for _, payload := range []string{"1", "2", "1"} {
			notify(t, pool, "a", payload)
		}
	}
	notify(t, pool, "b", "1") // the same payload, but not the same
	for range 5 {
		notify(t, pool, "b", "2") // no room
		notify(t, pool, "a", "2") // has its room
	}
	notify(t, pool, "b", "the end") // no room
	receive(t, read)                // the connection does not wait for the consumer
	close(release)
	want := []listener.Notification{{Channel: "a", Payload: "1"}, {Channel: "a", Payload: "2"}, {Channel: "b", Payload: "1"}}
	if b := receive(t, entered); !b.Gap || b.Dropped != 6 || !slices.Equal(b.Notifications, want) {
		t.Errorf("got %+v, want %+v, a gap and 6 dropped", b, want)
	}
	notify(t, pool, "b", "2") // there is room again
	if b := receive(t, entered); b.Gap || b.Dropped != 0 || len(b.Notifications) != 1 {
		t.Errorf("got %+v after the overflow", b)
	}
}

var ping = []byte("-- ping")

func TestPingsLoseNothing(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	var pings atomic.Int32
	l := newListener(t, listener.Config{
		Channels:     []string{"c"},
		PingInterval: time.Millisecond,
		Connect: connector(url, tap(wiretap{beforeWrite: func(b []byte) {
			if n := pings.Add(1); bytes.Contains(b, ping) && n < 50 {
				notify(t, pool, "c", fmt.Sprint(n))
			}
		}})),
	})
	r := start(t, l)
	r.gap()
	last := 0
	for _, payload := range r.payloads(40) {
		n, err := strconv.Atoi(payload)
		if err != nil || last != 0 && n != last+1 {
			t.Errorf("%q follows %d", payload, last)
		}
		last = n
	}
}

// A configuration with a notification handler of its own keeps the
// notifications, so the listener can only say that there were some.
func TestForeignHandler(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	r := start(t, newListener(t, listener.Config{
		Channels: []string{"c"},
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			config, err := pgx.ParseConfig(url)
			if err != nil {
				return nil, err
			}
			config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
			return pgx.ConnectConfig(ctx, config)
		},
	}))
	r.gap()
	notify(t, pool, "c", "taken away")
	r.gap()
}
