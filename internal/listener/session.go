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

	"github.com/gworker/gworker/internal/wait"
)

const (
	connectTimeout = 15 * time.Second
	answerTimeout  = 5 * time.Second // for LISTEN and for a ping
	closeTimeout   = time.Second
)

// session runs one connection from its beginning to its end. It returns how long the
// connection has listened, and why it ended.
func (l *Listener) session(ctx context.Context, pending *queue) (time.Duration, error) {
	l.config.OnState(State{Kind: Connecting})
	conn, err := l.connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	defer closeConn(conn)
	err = bounded(ctx, conn, l.answer, func() error {
		// One message, and therefore one transaction: all channels or none.
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
			if got := (Notification{Channel: n.Channel, Payload: n.Payload}); l.config.Take == nil || !l.config.Take(got) {
				pending.add(got)
			}
		case err == nil:
			// The configuration has an OnNotification, which has got the
			// notifications. All that can be said is that there were some.
			pending.gap()
		}
		switch {
		case err == nil:
		case ctx.Err() != nil: // says nothing about the connection
		case conn.IsClosed() || !pgconn.Timeout(err):
			return fmt.Errorf("waiting for notifications: %w", err)
		default:
			// A server that has vanished looks like a quiet one. Notifications that
			// arrive before the answer are kept in conn.
			err := bounded(ctx, conn, l.answer, func() error { return conn.Ping(context.Background()) })
			if err != nil {
				return fmt.Errorf("checking a silent connection: %w", err)
			}
		}
	}
	return context.Cause(ctx)
}

// present is the current session, for Reconnect and Check.
type present struct {
	leave   context.CancelCauseFunc
	network net.Conn

	mu      sync.Mutex
	waits   bool // for a notification
	suspect bool // the next wait ends at once
}

// wait notes whether the session waits for a notification. Check ends such a wait.
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

// bounded runs use, which uses conn, until ctx ends, and at most for limit.
//
// It sets deadlines on the network connection and gives pgx no context, because what pgx
// does at the end of a context depends on the connection's configuration: it may send
// cancel requests, which could hit the next statement, and wait for their effect. A read
// that exceeds its deadline leaves the connection usable.
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

// closeConn closes the connection. After an error, pgx tells the server in the background;
// it gets a moment for that, but not as long as it would need with a server that does not
// answer.
func closeConn(conn *pgx.Conn) {
	if !conn.IsClosed() {
		_ = conn.PgConn().Conn().SetDeadline(time.Now().Add(closeTimeout))
		_ = conn.Close(context.Background())
	}
	wait.For(context.Background(), conn.PgConn().CleanupDone(), closeTimeout)
}
