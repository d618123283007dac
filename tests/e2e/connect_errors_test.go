package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testproxy"
	"github.com/gworker/gworker/internal/testworker"
)

// What ends the wait for a database is named: the server, and the last thing that was
// heard of it.
func TestErrorsOfConnectingNameTheServerAndTheReason(t *testing.T) {
	t.Parallel()
	proxy, silent := testproxy.Start(t, testdb.Migrated(t))
	proxy.Silence()
	u, err := url.Parse(silent)
	if err != nil {
		t.Fatal(err)
	}
	for name, ping := range map[string]func() error{
		"Ping": func() error {
			client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: silent})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			return client.Ping(ctx)
		},
		"Run": func() error {
			w, err := gworker.NewWorker(gworker.Config{
				DatabaseURL: silent, ConnectTimeout: 300 * time.Millisecond, Tasks: []gworker.Task{gworker.NewTask("x", noop)},
			})
			if err != nil {
				t.Fatal(err)
			}
			return w.Run(t.Context())
		},
	} {
		err := ping()
		if err == nil || !strings.Contains(err.Error(), u.Host) || !strings.Contains(err.Error(), "did not answer within") {
			t.Errorf("%s: %v; it is to name %s", name, err, u.Host)
		}
	}
}

// A server that refuses first and is silent then: the refusal is the better reason.
func TestErrorsOfConnectingKeepTheLastReason(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var served atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if served.Add(1) <= 2 {
				_ = conn.Close()
				continue
			}
			defer conn.Close()
		}
	}()
	for _, timeout := range []time.Duration{2 * time.Second, patience} { // a busy machine takes longer
		served.Store(0)
		w, err := gworker.NewWorker(gworker.Config{
			DatabaseURL: "postgres://u@" + l.Addr().String() + "/db?sslmode=disable", ConnectTimeout: timeout,
			Tasks: []gworker.Task{gworker.NewTask("x", noop)},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = w.Run(t.Context())
		if err != nil && strings.Contains(err.Error(), "did not answer within") && strings.Contains(err.Error(), "before that: ") {
			return
		}
		if timeout == patience {
			t.Errorf("Run: %v", err)
		}
	}
}

// A server without TLS does not get it by being asked again.
func TestNoTLSIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	database := testdb.Migrated(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("sslmode", "require")
	u.RawQuery = q.Encode()
	w, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: u.String(), ConnectTimeout: time.Hour, Tasks: []gworker.Task{gworker.NewTask("x", noop)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.Run(ctx); err == nil || !strings.Contains(err.Error(), "the server has no TLS") {
		t.Errorf("Run: %v", err)
	}
}

// Nor does an authority become known.
func TestUnknownAuthorityIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil { // SSLRequest
				_, _ = conn.Write([]byte("S"))
				_ = tls.Server(conn, certified.TLS).Handshake()
			}
			_ = conn.Close()
		}
	}()
	w, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: "postgres://u@" + l.Addr().String() + "/db?sslmode=verify-full", ConnectTimeout: time.Hour,
		Tasks: []gworker.Task{gworker.NewTask("x", noop)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.Run(ctx); err == nil || !strings.Contains(err.Error(), "sslrootcert=FILE") {
		t.Errorf("Run: %v", err)
	}
}

// startingServer is a listener that has no TLS, as it says, and ends each connection
// after that, as a proxy does whose server is not there yet. Where another speaks first,
// says is what it sends.
func startingServer(t *testing.T, says string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			first := make([]byte, 8)
			if _, err := io.ReadFull(conn, first); err == nil {
				if says == "" && bytes.Equal(first, []byte{0, 0, 0, 8, 4, 210, 22, 47}) { // SSLRequest
					_, _ = conn.Write([]byte("N"))
				}
				_, _ = conn.Write([]byte(says))
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// TestServerWithoutTLSIsWaitedFor: by default a connection is tried with TLS and
// without, so that a refusal of TLS does not end the wait for the rest.
func TestServerWithoutTLSIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ says, others, options string }{
		"ends connections":  {},
		"speaks otherwise":  {says: "HTTP/1.1 503 Service Unavailable\r\n\r\n"},
		"one of two":        {others: ",127.0.0.1:1", options: "?sslmode=require"},
		"asked for no more": {options: "?sslmode=allow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := testworker.NewEvents()
			w, err := gworker.NewWorker(gworker.Config{
				DatabaseURL:    "postgres://u@" + startingServer(t, c.says) + c.others + "/db" + c.options,
				ConnectTimeout: time.Hour, Tasks: []gworker.Task{gworker.NewTask("x", noop)},
				Observers: []func(event.Event){e.Observe},
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- w.Run(ctx) }()
			defer func() { <-ended }()
			defer cancel()
			got := waitFor[event.DatabaseUnreachable](t, e, nil)
			if text := got.Err.Error(); strings.Contains(text, "has no TLS") {
				t.Error(text)
			}
		})
	}
}
