package job

import (
	"errors"
	"fmt"
)

// CancelMark is the member of a job's flags column that says that a client wants
// the present run to end. It is no flag of the job; db/queries/cancel.sql says
// what its value is.
const CancelMark = "gworker:cancel"

// ErrCancelled is what ends a run whose job was cancelled.
var ErrCancelled = errors.New("the job was cancelled")

// Cancelled is ErrCancelled with the reason that stands on the job's row.
func Cancelled(reason string) error {
	if reason == "" || reason == ErrCancelled.Error() {
		return ErrCancelled
	}
	return fmt.Errorf("%w: %s", ErrCancelled, reason)
}

// ErrLost is the cause of a job's context that ends because the job is no longer
// this worker's.
var ErrLost = errors.New("the job is no longer locked by this worker: its lock was taken away, or its row removed")

// ErrUnchanged is the refusal of a database that reports no error.
var ErrUnchanged = errors.New("the job's row is as it was, although the statement succeeded; " +
	"look for a trigger on the jobs table that returns null")
