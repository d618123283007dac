package sqltask

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"
)

var errCopyIn = errors.New("copy ... from stdin waits for data that a task file cannot give: " +
	"use insert, or copy from a file on the server")

// exec runs the file's statements, by the simple protocol, which takes any number of
// them. Their results, and what copy sends, are read and dropped. pgconn's own reader
// would wait forever if copy asks for data.
//
// exec ends with ctx, as any statement on conn does. If the server does not answer that
// it has ended the statements, conn is closed.
func exec(ctx context.Context, conn *pgx.Conn, statements string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	server := conn.PgConn()
	watcher := ctxwatch.NewContextWatcher(conn.Config().BuildContextWatcherHandler(server))
	watcher.Watch(ctx)
	err := converse(server, statements)
	watcher.Unwatch()
	var broken *brokenError
	if errors.As(err, &broken) {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = conn.Close(closing) // it is broken already
	}
	return err
}

// brokenError says that it is not known whether the server has run the statements.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// converse returns the first error of the statements.
func converse(server *pgconn.PgConn, statements string) error {
	frontend := server.Frontend()
	frontend.SendQuery(&pgproto3.Query{String: statements})
	if err := frontend.Flush(); err != nil {
		return &brokenError{fmt.Errorf("sending the statements: %w", err)}
	}
	var failure error
	for {
		message, err := server.ReceiveMessage(context.Background()) // exec watches ctx
		if err != nil {
			return &brokenError{errors.Join(failure, fmt.Errorf("waiting for the end of the statements: %w", err))}
		}
		switch message := message.(type) {
		case *pgproto3.CopyInResponse:
			failure = errors.Join(failure, errCopyIn)
			frontend.Send(&pgproto3.CopyFail{Message: "a task file has no data for it"})
			if err := frontend.Flush(); err != nil {
				return &brokenError{errors.Join(failure, err)}
			}
		case *pgproto3.ErrorResponse:
			if failure == nil {
				failure = pgconn.ErrorResponseToPgError(message)
			}
		case *pgproto3.ReadyForQuery:
			return failure
		}
	}
}
