// Package dial opens network connections for pgx, tracks them, and can close all of
// them at once.
//
// pgx waits for a server in places that no context reaches: a pool that closes waits
// for connections whose last statement is being cancelled, which takes up to 15 s if
// the server does not answer. A connection whose socket is closed keeps nothing
// waiting. So a shutdown that has reached its deadline closes the sockets, and
// everything that waits for the server ends with them.
//
// The configuration of one connection comes in; the same with another dial function
// goes out. The one thing not to break: connections reach the server the way the
// configuration says, through whatever proxy.
package dial

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// keepAlive makes the system probe a silent connection, which also keeps the entries of
// firewalls on its way alive. A connection whose other end has vanished fails within 15 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 2}

// cancelTimeout bounds a cancel request, which goes to a server that may not answer
// at all. pgx would wait 15 s, and a pool would keep the connection's place so long.
const cancelTimeout = 2 * time.Second

// Dialer dials, and knows what is open. The zero value is ready to use, by many
// goroutines at once.
type Dialer struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

// Prepare has the connection that config is for dialed by d, in the way that config
// says. Call it for each connection, each time with a fresh copy of the configuration.
func (d *Dialer) Prepare(config *pgx.ConnConfig) {
	var connected atomic.Bool // what is dialed from then on is a cancel request
	afterConnect, dial := config.AfterConnect, config.DialFunc
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if afterConnect != nil {
			if err := afterConnect(ctx, conn); err != nil {
				return err
			}
		}
		connected.Store(true)
		return nil
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if !connected.Load() {
			return d.dial(ctx, dial, network, address)
		}
		ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
		defer cancel()
		deadline, _ := ctx.Deadline()
		c, err := d.dial(ctx, dial, network, address)
		if err == nil {
			err = c.SetDeadline(deadline)
		}
		return c, err
	}
}

func (d *Dialer) dial(ctx context.Context, dial pgconn.DialFunc, network, address string) (net.Conn, error) {
	if d.isClosed() {
		return nil, fmt.Errorf("dialing %s: %w", address, net.ErrClosed)
	}
	socket, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := socket.(*net.TCPConn); ok {
		// On a system that cannot do this, pings find dead connections.
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
	c := &conn{Conn: socket, dialer: d}
	if !d.add(c) {
		_ = c.Conn.Close()
		return nil, fmt.Errorf("dialing %s: %w", address, net.ErrClosed)
	}
	return c, nil
}

func (d *Dialer) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// add reports false if c came too late.
func (d *Dialer) add(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	if d.open == nil {
		d.open = make(map[*conn]struct{})
	}
	d.open[c] = struct{}{}
	return true
}

func (d *Dialer) remove(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, c)
}

// Close closes every socket, even one in use, and refuses to dial from then on. It does not
// wait.
func (d *Dialer) Close() {
	d.mu.Lock()
	d.closed = true
	open := d.open
	d.open = nil
	d.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

// conn is an open connection.
type conn struct {
	net.Conn
	dialer *Dialer
}

func (c *conn) Close() error {
	c.dialer.remove(c)
	return c.Conn.Close()
}
