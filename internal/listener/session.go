package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	connectTimeout = 15 * time.Second
	answerTimeout  = 5 * time.Second // for LISTEN and for a ping
	closeTimeout   = time.Second
)

// session is one connection from its beginning to its end. It returns how long
// it listened, and why it no longer does.
func (l *Listener) session(ctx context.Context, pending *queue) (time.Duration, error) {
	l.config.OnState(State{Kind: Connecting})
	conn, err := l.connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	defer closeConn(conn)
	err = bounded(ctx, conn, l.answer, func() error {
		// One message and so one transaction: all channels or none.
		return conn.PgConn().Exec(context.Background(), listenSQL(l.config.Channels)).Close()
	})
	if err != nil {
		return 0, fmt.Errorf("listening: %w", err)
	}
	since := l.now()
	l.config.OnState(State{Kind: Connected})
	pending.gap()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	p := &present{leave: leave, network: conn.PgConn().Conn()}
	l.present.Store(p)
	defer l.present.Store(nil)
	err = l.receive(ctx, conn, p, pending)
	return l.now().Sub(since), err
}

func (l *Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := l.config.Connect(ctx)
	if err == nil && conn == nil {
		return nil, errors.New("there is neither a connection nor an error")
	}
	return conn, err
}

func listenSQL(channels []string) string {
	var sql strings.Builder
	for _, channel := range channels {
		sql.WriteString("LISTEN " + pgx.Identifier{channel}.Sanitize() + ";")
	}
	return sql.String()
}

// receive reads until the connection breaks or ctx ends.
func (l *Listener) receive(ctx context.Context, conn *pgx.Conn, p *present, pending *queue) error {
	for ctx.Err() == nil {
		var n *pgconn.Notification
		err := bounded(ctx, conn, l.config.PingInterval, func() (err error) {
			p.wait(true)
			defer p.wait(false)
			n, err = conn.WaitForNotification(context.Background())
			return err
		})
		switch {
		case n != nil:
			pending.add(Notification{Channel: n.Channel, Payload: n.Payload})
		case err == nil:
			// The configuration has an OnNotification, so what came in went
			// there. Saying that there was something is all that is left.
			pending.gap()
		}
		switch {
		case err == nil:
		case ctx.Err() != nil: // no news about the connection
		case conn.IsClosed() || !pgconn.Timeout(err):
			return fmt.Errorf("waiting for notifications: %w", err)
		default:
			// A peer that is gone without a word looks just like a quiet one.
			// Notifications that come before the answer wait in conn.
			err := bounded(ctx, conn, l.answer, func() error { return conn.Ping(context.Background()) })
			if err != nil {
				return fmt.Errorf("checking a silent connection: %w", err)
			}
		}
	}
	return context.Cause(ctx)
}

// present is the session that there is now, for those who tell it something.
type present struct {
	leave   context.CancelCauseFunc
	network net.Conn

	mu      sync.Mutex
	waits   bool // for a notification
	suspect bool // whoever waits next does not
}

// wait says whether the session waits for a notification, which check cuts short.
func (p *present) wait(waits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits = waits
	if waits && p.suspect {
		p.suspect = false
		_ = p.network.SetDeadline(time.Unix(1, 0))
	}
}

func (p *present) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect = !p.waits
	if p.waits {
		_ = p.network.SetDeadline(time.Unix(1, 0))
	}
}

// bounded runs something that uses conn, until ctx ends and no longer than
// limit.
//
// It sets deadlines of the network connection and gives pgx no context, because
// what pgx does when a context ends is up to the connection's configuration: it
// may send cancel requests, which could hit the next statement, and wait for
// their effect. A read that passes its deadline leaves the connection usable.
func bounded(ctx context.Context, conn *pgx.Conn, limit time.Duration, use func() error) error {
	network := conn.PgConn().Conn()
	if err := network.SetDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("setting a deadline: %w", err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = network.SetDeadline(time.Unix(1, 0))
	})
	err := use()
	if !stop() {
		<-interrupted
	}
	return err
}

// closeConn says goodbye to the server. After an error pgx does that by itself
// in the background; it is given a moment, but not as long as it would take
// with a server that does not answer.
func closeConn(conn *pgx.Conn) {
	if !conn.IsClosed() {
		_ = conn.PgConn().Conn().SetDeadline(time.Now().Add(closeTimeout))
		_ = conn.Close(context.Background())
	}
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-conn.PgConn().CleanupDone():
	case <-timer.C:
	}
}
