package gworkertype

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// IncompatibleSchemaError says that the schema holds a breaking revision that is newer than
// this version of gworker. Nothing was changed, and the schema must not be worked on. The
// binary exits with status 57 then, as other Graphile Workers do.
type IncompatibleSchemaError struct {
	// Revision is the newest revision that the schema's ledger records.
	Revision int
	// Breaking is the newest breaking one.
	Breaking int
	// Supported is the newest revision that this version can work on.
	Supported int
}

// Error is worded as Node's worker words it.
func (e *IncompatibleSchemaError) Error() string {
	return fmt.Sprintf("Database is using Graphile Worker schema revision %d which includes breaking migration %d, "+
		"but the currently running worker only supports up to revision %d. It would be unsafe to continue; "+
		"please ensure all versions of Graphile Worker are compatible.", e.Revision, e.Breaking, e.Supported)
}

// ServerVersionError says that the server is too old.
type ServerVersionError struct {
	// Number is the server's server_version_num, such as 110022.
	Number int
}

// Error is worded as Node's worker words it.
func (e *ServerVersionError) Error() string {
	return fmt.Sprintf("This version of Graphile Worker requires PostgreSQL v12.0 or greater "+
		"(detected `server_version_num` = %d)", e.Number)
}

// LockedJobsError says that revision 11 could not be applied because a worker is running
// jobs or has left locks behind. Nothing of it was changed; earlier revisions that were
// missing have been applied, and stay so.
type LockedJobsError struct {
	// Err is the server's error, if the revision was tried; nil if not.
	Err error
}

// Error is worded as Node's worker words it.
func (e *LockedJobsError) Error() string {
	return "There are locked jobs present; migration 11 cannot complete. Please ensure all workers are shut down " +
		"cleanly and all locked jobs and queues are unlocked before attempting this migration."
}

// Unwrap returns Err.
func (e *LockedJobsError) Unwrap() error { return e.Err }

// LedgerError says that the schema's table migrations does not record which revisions have
// run: it is a table of another program, or rows were deleted. Nothing was changed.
type LedgerError struct {
	// Schema is the name of the schema.
	Schema string
	// Truncated says that rows are missing.
	Truncated bool
	// Newest is the highest revision that is left if Truncated, or 0.
	Newest int
	// Columns are those of a table of another program, with their types; "" if
	// Truncated.
	Columns string
}

// Error says what is wrong with the table, and what helps.
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

// MissingObjectsError says that objects are missing that the schema should have by its
// ledger.
type MissingObjectsError struct {
	// Schema is the name of the schema.
	Schema string
	// Missing are the objects, such as "view jobs" or "index _private_jobs.jobs_main_index".
	Missing []string
	// Err is the server's error, if a revision failed because of them; nil if not.
	Err error
}

// Error names what is missing.
func (e *MissingObjectsError) Error() string {
	return fmt.Sprintf("schema %q is incomplete although its ledger says otherwise. Missing: %s. "+
		"Restore them, or let the Graphile Worker that made the newest revision migrate first.",
		e.Schema, strings.Join(e.Missing, "; "))
}

// Unwrap returns Err.
func (e *MissingObjectsError) Unwrap() error { return e.Err }
