// Package retry decides which database errors pass by themselves, and how long to wait
// before the next try. The waits and their bounds are those of the Node and Rust
// workers, so that all workers of a mixed fleet put the same load on a struggling
// server. sqlstates.go is the table of all error codes, backoff.go has all the waits.
//
// The one thing not to break: if the server refuses something because of its values, a
// constraint or a trigger, that is an answer and not an outage. The same statement would
// be refused again, so the caller must send another one.
package retry

import (
	"errors"
	"io"
	"net"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Class is what an error says about the next try.
type Class uint8

const (
	// No: the same statement fails until a person changes something: the schema,
	// a right, a setting. It says nothing about the values.
	No Class = iota
	// Answer: the server has refused the values of the statement, by itself or by a
	// constraint or trigger of the user's. The same values will be refused again.
	Answer
	// Contention: another transaction was in the way; the statement had no
	// effect.
	Contention
	// Connection: the server is away, going away, or has no room; whether the
	// statement took effect may be unknown.
	Connection
)

// Passes reports whether err may pass by itself.
func Passes(err error) bool {
	class := Of(err)
	return class == Contention || class == Connection
}

// Of classifies an error.
func Of(err error) Class {
	var answer *pgconn.PgError
	var connect *pgconn.ConnectError
	if errors.As(err, &answer) {
		r := ruleOf(answer.Code)
		switch {
		case errors.As(err, &connect):
			// No session has begun. What does not pass is a matter of the settings.
			if r.class == Answer {
				return No
			}
			return r.class
		case ended(answer):
			return Connection // whatever ended the session, another one can be had
		case raised(answer), ruled(answer), checked(answer):
			return Answer
		case r.class == No && answer.Where != "" && programs[answer.Code[:min(2, len(answer.Code))]]:
			return Answer
		}
		return r.class
	}
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.Timeout(err) || isClosedConn(err) {
		return Connection
	}
	return No
}

// programs are the classes of errors that, with a context, come from inside of a
// function: a trigger with a mistake of its own, while our statement is in order.
var programs = map[string]bool{
	"02": true, "0A": true, "0F": true, "0Z": true, "24": true, "25": true, "26": true, "2D": true, "34": true,
	"3B": true, "3D": true, "3F": true, "42": true, "55": true, "XX": true,
}

// Unencodable reports whether the encoding of the database cannot hold a text.
func Unencodable(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (answer.Code == pgerrcode.UntranslatableCharacter || answer.Code == pgerrcode.CharacterNotInRepertoire) && Refused(err) && !raised(answer)
}

// Raised reports whether err was raised on purpose, by a function in PL/pgSQL.
func Raised(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && raised(answer)
}

// raised reports whether a PL/pgSQL function has raised the error by itself,
// whatever code it gave it. The name of the server's function that did it is never
// translated.
func raised(answer *pgconn.PgError) bool { return answer.Routine == "exec_stmt_raise" }

// Ruled reports whether a rule of the user's on a table is against every statement of
// the kind, whatever its values are.
func Ruled(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && ruled(answer)
}

// ruled reports whether a rule is against a statement: the server does not rewrite those
// of several parts, as ours are, for rules that replace them.
func ruled(answer *pgconn.PgError) bool {
	return answer.Code == pgerrcode.FeatureNotSupported && answer.Routine == "RewriteQuery"
}

// checked reports whether the check of a row level security policy is against a row. The
// code is that of a missing right, but as with a constraint, other values may pass.
func checked(answer *pgconn.PgError) bool {
	return answer.Code == pgerrcode.InsufficientPrivilege && answer.Routine == "ExecWithCheckOptions"
}

// ended reports whether the error was the end of its session.
func ended(answer *pgconn.PgError) bool {
	return answer.SeverityUnlocalized == "FATAL" || answer.SeverityUnlocalized == "PANIC"
}

// isClosedConn finds pgx's error for a connection that broke earlier.
func isClosedConn(err error) bool {
	var locked interface{ SafeToRetry() bool }
	return errors.As(err, &locked) && locked.SafeToRetry()
}

// Refused reports whether the server has said that it did not carry the statement
// out, so that it certainly had no effect. A FATAL end of the connection is no such
// answer, for it may come after the commit; unless the session was ended because it
// was idle, so that the statement never began.
func Refused(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	return answer.SeverityUnlocalized == "ERROR" || answer.Code == pgerrcode.IdleSessionTimeout || answer.Code == pgerrcode.IdleInTransactionSessionTimeout
}

// Elsewhere reports whether err is the fault of a session that another session may
// not have: its prepared statements are gone or outdated, or it was ended because it
// was idle. The statement had no effect. The session is to be closed, and the
// statement tried once more, at once.
func Elsewhere(err error) bool {
	var answer *pgconn.PgError
	var connect *pgconn.ConnectError
	return errors.As(err, &answer) && Refused(err) && !raised(answer) && !ruled(answer) && ruleOf(answer.Code).elsewhere && !errors.As(err, &connect)
}

// AtOnce reports whether one more try is worthwhile at once, on another connection:
// this one was unfit or has ended, which says nothing about the server. Unless the
// statement was Refused, it may have taken effect.
func AtOnce(err error) bool {
	var connect *pgconn.ConnectError
	return Elsewhere(err) || Of(err) == Connection && !Refused(err) && !pgconn.Timeout(err) && !errors.As(err, &connect)
}

// SessionOnly reports whether it certainly is the session's fault, while the same code
// may otherwise also be the answer to a statement that no session can carry out.
func SessionOnly(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || !Elsewhere(err) {
		return false
	}
	switch answer.Code {
	case pgerrcode.InvalidSQLStatementName, pgerrcode.IdleSessionTimeout, pgerrcode.IdleInTransactionSessionTimeout:
		return true
	case pgerrcode.FeatureNotSupported: // the cached plan, whatever language the server speaks
		return answer.Routine == "RevalidateCachedQuery"
	}
	return false
}
