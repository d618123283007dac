package listener_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// wiretap sees what a connection reads and writes.
type wiretap struct {
	net.Conn
	beforeRead  func(soFar []byte) // all that was read; all of it has been worked on
	beforeWrite func(b []byte)
	beforeClose func()

	soFar bytes.Buffer
}

// tap puts wiretaps like w into the connections of a configuration.
func tap(w wiretap) func(*pgx.ConnConfig) {
	return func(config *pgx.ConnConfig) {
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &wiretap{
				Conn: conn, beforeRead: w.beforeRead, beforeWrite: w.beforeWrite, beforeClose: w.beforeClose,
			}, nil
		}
	}
}

func (w *wiretap) Read(b []byte) (int, error) {
	if w.beforeRead != nil {
		w.beforeRead(w.soFar.Bytes())
	}
	n, err := w.Conn.Read(b)
	w.soFar.Write(b[:n])
	return n, err
}

func (w *wiretap) Write(b []byte) (int, error) {
	if w.beforeWrite != nil {
		w.beforeWrite(b)
	}
	return w.Conn.Write(b)
}

func (w *wiretap) Close() error {
	if w.beforeClose != nil {
		w.beforeClose()
	}
	return w.Conn.Close()
}

// proxy forwards TCP connections to the server. cut makes it keep what it gets
// on the present connections for itself; they stay open, as if the network had
// gone away.
type proxy struct {
	listener net.Listener
	target   func() (net.Conn, error)
	wg       sync.WaitGroup

	mu     sync.Mutex
	silent chan struct{} // closed: the connections with it forward nothing
	conns  []net.Conn
}

func newProxy(t *testing.T, url string) *proxy {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, silent: make(chan struct{})}
	p.target = func() (net.Conn, error) {
		network, address := pgconn.NetworkAddress(config.Host, config.Port)
		return config.DialFunc(context.Background(), network, address)
	}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// through leads the connections of a configuration through the proxy.
func (p *proxy) through(config *pgx.ConnConfig) {
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", p.listener.Addr().String())
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.silent)
	p.silent = make(chan struct{})
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := p.target()
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		silent := p.silent
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.wg.Go(func() { forward(server, client, silent) })
		p.wg.Go(func() { forward(client, server, silent) })
	}
}

func forward(to, from net.Conn, silent <-chan struct{}) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-silent:
			continue
		default:
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
