package migrate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An IncompatibleError says that the ledger holds a breaking revision that is
// not known here. Nothing was changed, and the schema must not be worked on;
// every Graphile Worker exits with status 57 then.
type IncompatibleError struct {
	// Revision is the newest one in the ledger.
	Revision int
	// Breaking is the newest breaking one.
	Breaking int
	// Supported is the newest revision that can be worked on.
	Supported int
}

func (e *IncompatibleError) Error() string {
	return fmt.Sprintf("Database is using Graphile Worker schema revision %d which includes breaking migration %d, "+
		"but the currently running worker only supports up to revision %d. It would be unsafe to continue; "+
		"please ensure all versions of Graphile Worker are compatible.", e.Revision, e.Breaking, e.Supported)
}

func (*IncompatibleError) ownMigrationError() {}

// A ServerVersionError says that the server is too old.
type ServerVersionError struct {
	// Number is the server's server_version_num, such as 110022.
	Number int
}

func (e *ServerVersionError) Error() string {
	return fmt.Sprintf("This version of Graphile Worker requires PostgreSQL v12.0 or greater "+
		"(detected `server_version_num` = %d)", e.Number)
}

func (*ServerVersionError) ownMigrationError() {}

// A LockedJobsError says that revision 11 was not applied, and nothing changed
// by it, because a worker is running jobs or has left locks behind. Earlier revisions
// that were missing have been applied, and stay so.
type LockedJobsError struct {
	// Err is the server's error, if the revision was tried.
	Err error
}

func (e *LockedJobsError) Error() string {
	return "There are locked jobs present; migration 11 cannot complete. Please ensure all workers are shut down " +
		"cleanly and all locked jobs and queues are unlocked before attempting this migration."
}

func (e *LockedJobsError) Unwrap() error { return e.Err }

func (*LockedJobsError) ownMigrationError() {}

// A LedgerError says that the schema's table migrations does not record which revisions have
// run. Nothing was changed.
type LedgerError struct {
	Schema string
	// Truncated says that rows are missing; Newest is the highest revision left, or 0.
	Truncated bool
	Newest    int
	// Columns are those of a table of another program, with their types.
	Columns string
}

func (e *LedgerError) Error() string {
	table := pgx.Identifier{e.Schema, "migrations"}.Sanitize()
	if !e.Truncated {
		return fmt.Sprintf("the table %s is another program's and not the ledger of a Graphile Worker: its columns are %s. "+
			"Choose another schema for the queue, or rename that table", table, e.Columns)
	}
	return fmt.Sprintf("the table %s records no revision above %d, but the schema has the tables of revision 16 or later: "+
		"rows were deleted. Put them back, and migrate then: insert into %s (id, breaking) "+
		"select i, i in (1, 3, 11, 13, 14, 16) from generate_series(1, 18) i on conflict do nothing", table, e.Newest, table)
}

func (*LedgerError) ownMigrationError() {}

// A MissingObjectsError says that objects are missing that the schema should have by its
// ledger.
type MissingObjectsError struct {
	Schema string
	// Missing are the objects, such as "view jobs" or "index _private_jobs.jobs_main_index".
	Missing []string
	// Err is the server's error, if a revision failed because of them.
	Err error
}

func (e *MissingObjectsError) Unwrap() error { return e.Err }

func (e *MissingObjectsError) Error() string {
	return fmt.Sprintf("schema %q is incomplete although its ledger says otherwise. Missing: %s. "+
		"Restore them, or let the Graphile Worker that made the newest revision migrate first.",
		e.Schema, strings.Join(e.Missing, "; "))
}

func (*MissingObjectsError) ownMigrationError() {}

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
