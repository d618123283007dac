package migrate

import (
	"errors"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/gworkertype"
)

// The errors of a run that say themselves what was being done.
type (
	IncompatibleError   = gworkertype.IncompatibleSchemaError
	ServerVersionError  = gworkertype.ServerVersionError
	LockedJobsError     = gworkertype.LockedJobsError
	LedgerError         = gworkertype.LedgerError
	MissingObjectsError = gworkertype.MissingObjectsError
)

// saysItself reports whether err is, or wraps, one of them.
func saysItself(err error) bool {
	return is[*IncompatibleError](err) || is[*ServerVersionError](err) || is[*LockedJobsError](err) ||
		is[*LedgerError](err) || is[*MissingObjectsError](err)
}

func is[E error](err error) bool {
	var found E
	return errors.As(err, &found)
}

func sqlState(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}

// raced reports whether err is what a migration meets when another process, of
// any runtime, migrates the same schema at the same moment.
func raced(err error) bool {
	switch sqlState(err) {
	case pgerrcode.UniqueViolation, pgerrcode.DuplicateSchema, pgerrcode.DuplicateTable, pgerrcode.DuplicateObject: // it exists already: a row, schema, table or index, anything else
		return true
	case pgerrcode.DeadlockDetected, pgerrcode.SerializationFailure: // each waited for what the other had made
		return true
	case pgerrcode.InternalError: // both replaced a function; there is no better code, and no translation of the text
		var answer *pgconn.PgError
		return errors.As(err, &answer) && strings.HasPrefix(answer.Message, "tuple concurrently ")
	}
	return false
}

// notYet reports whether err is an error that reading a ledger can have while the ledger is
// being created or extended.
func notYet(err error) bool {
	switch sqlState(err) {
	case pgerrcode.UndefinedTable, pgerrcode.UndefinedColumn, pgerrcode.InvalidSchemaName:
		return true
	}
	return false
}
