package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dial"
	"github.com/gworker/gworker/internal/wait"
)

// Outside opens a connection outside a pool, as the pool opens its own and makes
// them ready: with BeforeConnect, AfterConnect, and PrepareConn or BeforeAcquire. It
// changes config.
func Outside(ctx context.Context, d *dial.Dialer, config *pgxpool.Config) (*pgx.Conn, error) {
	if config.BeforeConnect != nil {
		if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
			return nil, fmt.Errorf("BeforeConnect of the pool's configuration: %w", err)
		}
	}
	config.ConnConfig.OnNotification = nil // it would take the notifications away from the listener
	d.Prepare(config.ConnConfig)
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, err
	}
	if err := makeReady(ctx, conn, config); err != nil {
		CloseSoon(conn)
		return nil, err
	}
	return conn, nil
}

// makeReady does what the pool would do with a connection before its first use.
func makeReady(ctx context.Context, conn *pgx.Conn, config *pgxpool.Config) error {
	if config.AfterConnect != nil {
		if err := config.AfterConnect(ctx, conn); err != nil {
			return fmt.Errorf("AfterConnect of the pool's configuration: %w", err)
		}
	}
	switch {
	case config.PrepareConn != nil:
		ok, err := config.PrepareConn(ctx, conn)
		if err != nil {
			return fmt.Errorf("PrepareConn of the pool's configuration: %w", err)
		}
		if !ok {
			return errors.New("PrepareConn of the pool's configuration takes no new connection")
		}
	//lint:ignore SA1019 pools of callers may still have it, and it counts for them
	case config.BeforeAcquire != nil && !config.BeforeAcquire(ctx, conn):
		return errors.New("BeforeAcquire of the pool's configuration takes no new connection")
	}
	return nil
}

// CloseSoon closes a connection, within a second if its server does not answer.
func CloseSoon(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing was left to say
}

// closing bounds how long the close of a pool waits for statements in progress.
const closing = 2 * time.Second

// ClosePool closes a pool whose connections d has dialed. Statements in progress have until
// ctx ends, and at most closing; then their connections are cut. It does not wait for
// connections that are acquired and not released.
func ClosePool(ctx context.Context, pool *pgxpool.Pool, d *dial.Dialer) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	if !wait.For(ctx, closed, closing) {
		d.Close()
		wait.For(context.WithoutCancel(ctx), closed, time.Second)
	}
}
