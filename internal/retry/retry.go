// Package retry decides which database errors pass by themselves and how long
// to wait before the next try. The classes and their bounds are those that the
// Node and Rust workers use, so that a mixed fleet leans on a struggling server
// with equal weight.
//
// The one thing not to break: an error outside these classes is the database's
// answer, and asking again blindly would only repeat it.
package retry

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Class is what an error says about the next try.
type Class uint8

const (
	// No: the same statement would fail again.
	No Class = iota
	// Contention: another transaction was in the way; the statement had no
	// effect.
	Contention
	// Connection: the server is away or going away; whether the statement took
	// effect may be unknown.
	Connection
)

// Of classifies an error.
func Of(err error) Class {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch answer.Code {
		case "40001", "40P01":
			return Contention
		case "57P01", "57P02", "57P03", // shutting down, crashed, starting up
			"53300",          // too many connections
			"25006", "57014": // read-only after a failover, cancelled by its time-out
			return Connection
		}
		if len(answer.Code) == 5 && answer.Code[:2] == "08" {
			return Connection
		}
		return No
	}
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.Timeout(err) || isClosedConn(err) {
		return Connection
	}
	return No
}

// isClosedConn finds pgx's error for a connection that broke earlier.
func isClosedConn(err error) bool {
	var locked interface{ SafeToRetry() bool }
	return errors.As(err, &locked) && locked.SafeToRetry()
}

// Refused reports whether err is the server's own refusal of a statement, so
// that the statement certainly had no effect. A FATAL end of the connection is
// no such answer: it may come after the commit.
func Refused(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.SeverityUnlocalized == "ERROR"
}

// Backoff returns a fresh sequence of waits for a class: 50 ms to 5 s for
// contention, 3 s to 120 s otherwise, growing by 1.5 with jitter, forever.
func Backoff(c Class) backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.Multiplier = 1.5
	b.RandomizationFactor = 0.3
	b.InitialInterval, b.MaxInterval = 3*time.Second, 120*time.Second
	if c == Contention {
		b.InitialInterval, b.MaxInterval = 50*time.Millisecond, 5*time.Second
	}
	return b
}
