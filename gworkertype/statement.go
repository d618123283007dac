package gworkertype

import (
	"fmt"
	"time"
)

// StatementTimeoutError is the error of one of gworker's own statements that did not end
// within its bound, such as Config.StatementTimeout.
type StatementTimeoutError struct {
	// Statement is the statement's name in db/queries, such as "AddJobs".
	Statement string
	// After is the bound.
	After time.Duration
	// Err is what the driver said.
	Err error
}

// Error names the statement and the bound.
func (e *StatementTimeoutError) Error() string {
	return fmt.Sprintf("statement %s did not end within %s: %v", e.Statement, e.After, e.Err)
}

// Unwrap returns Err.
func (e *StatementTimeoutError) Unwrap() error { return e.Err }

// Timeout returns true: the error is a time-out for callers that ask as of a net.Error.
func (e *StatementTimeoutError) Timeout() bool { return true }
