package gworker

import (
	"errors"
	"fmt"

	"github.com/gworker/gworker/gworkertype"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/store"
)

var (
	// ErrJobNotFound is returned for a job that does not exist.
	ErrJobNotFound = store.ErrNotFound

	// ErrKeyBusy is returned when a job could not be added because another session had
	// locked the row of its key at that moment. Trying again is safe.
	ErrKeyBusy = store.ErrKeyBusy

	// ErrNotInstalled is returned when the database has no queue in the client's schema.
	// Clients do not install one by themselves, as they may lack the rights:
	// Client.Migrate does, and workers do when they start.
	ErrNotInstalled = store.ErrNotInstalled

	// ErrNoUnique is returned when a job with UniqueFor is added to a schema that has no
	// tables of gworker's own: Client.Migrate makes them, with those of history.
	ErrNoUnique = store.ErrNoUnique

	// ErrShutdown is the cause (see [context.Cause]) of a handler's context that
	// ends because the worker has waited for the handler as long as
	// Config.GracefulShutdownAbortTimeout allows.
	ErrShutdown = scheduler.ErrShutdown

	// ErrShutdownTimeout is returned by Run and RunOnce when Config.ShutdownTimeout is
	// over and a function of the caller's, such as an observer or ForbiddenFlagsFunc,
	// has not returned. Handlers that have not returned are given up before, without an
	// error.
	ErrShutdownTimeout = errors.New("a function that the worker has called did not return within ShutdownTimeout")

	// ErrBreakingMigration is returned by Run when another process has applied
	// a breaking revision to the worker's schema. The worker has shut down
	// gracefully; the binary exits with status 57 then, as other Graphile
	// Workers do.
	ErrBreakingMigration = errors.New("a breaking migration was applied to the schema by another process")

	// ErrAlreadyRun is returned by the second call of Run or RunOnce: a Worker
	// is used once.
	ErrAlreadyRun = errors.New("this worker has been run already: make a new one")
)

// FieldError says which field of a configuration or a job spec cannot be used,
// and why.
type FieldError struct {
	// Field is the field's path, such as "JobSpec.Task" or "specs[3].Priority".
	Field string
	// Problem says what is wrong with its value and what the limit is.
	Problem string
}

// Error names the field and what is wrong with it.
func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// problem makes a FieldError.
func problem(field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// The errors that come from deep inside, for errors.As. Package gworkertype declares them,
// since other packages make them, and shows their fields; it has two more of their kind.
type (
	// A StatementTimeoutError is the error of one of gworker's own statements that did not
	// end within StatementTimeout. See [gworkertype.StatementTimeoutError].
	StatementTimeoutError = gworkertype.StatementTimeoutError

	// A PanicError is a panic of the program's own code; a handler's is the failure of
	// its job. Value is the value of the panic, and Stack its stack. The error's text is
	// short, "panic: " and the value's text; the job's last error is that text and the
	// stack. See [gworkertype.PanicError].
	PanicError = gworkertype.PanicError

	// An IncompatibleSchemaError is returned when the schema holds a breaking revision
	// that is newer than this version of gworker. Nothing was changed; the binary exits
	// with status 57 then, as other Graphile Workers do. See
	// [gworkertype.IncompatibleSchemaError].
	IncompatibleSchemaError = gworkertype.IncompatibleSchemaError

	// A LockedJobsError is returned when revision 11 could not be applied because a
	// worker is running jobs or has left locks behind. Nothing of it was changed; earlier
	// revisions that were missing have been applied, and stay so. See
	// [gworkertype.LockedJobsError].
	LockedJobsError = gworkertype.LockedJobsError

	// A LedgerError is returned when the schema's table migrations is another program's,
	// or has lost rows of revisions that the schema shows. Nothing was changed. See
	// [gworkertype.LedgerError].
	LedgerError = gworkertype.LedgerError
)
