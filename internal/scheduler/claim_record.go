package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// The events of held jobs are recorded by the last statement before the commit of their
// claim's end. Whatever is wrong with the tables of history, the function that it calls has
// an answer. That the function itself is gone, or no longer this role's to call, is an error;
// so a savepoint comes before it. It does what refused_held.go says of savepoints to no row,
// as all are written by then. And the statement is prepared when the connection is made: an
// error of that would come before the savepoint.

const (
	savepointRecord  = "savepoint gworker_record"
	rollBackToRecord = "rollback to savepoint gworker_record"
)

// errUnprepared is why events are dropped of a connection that cannot record them yet.
var errUnprepared = errors.New("the connection is not ready for that")

// learnToRecord prepares the connection.
func (cc *claimConn) learnToRecord(ctx context.Context) {
	h := cc.h
	if !h.out.Records() {
		cc.records = false
		return
	}
	text := h.text(dbgen.RecordRuns)
	_, err := cc.conn.Prepare(ctx, text, text) // under this name it is found
	if cc.records = err == nil; !cc.records {
		h.out.Recorded(&dbgen.RecordRunsParams{}, "", fmt.Errorf("statement RecordRuns: %w", err))
	}
}

// recordRefused is the error of the statement that records.
type recordRefused struct{ err error }

func (e *recordRefused) Error() string { return e.err.Error() }
func (e *recordRefused) Unwrap() error { return e.err }

// record asks for the events of what has ended. It is the last statement before the commit.
func (w *claimEnd) record(runs []completer.Result) {
	h := w.cc.h
	events := h.out.Events(runs)
	switch {
	case events == nil:
		return
	case !w.cc.records:
		h.out.Recorded(events, "", errUnprepared)
		return
	}
	w.events = events
	w.add("savepoint", savepointRecord, nil)
	w.add("RecordRuns", h.text(dbgen.RecordRuns), func(results pgx.BatchResults) error {
		if err := results.QueryRow().Scan(&w.problem); err != nil {
			return &recordRefused{err: err}
		}
		return nil
	}, recordArgs(events)...)
}

// recordArgs are the arguments of RecordRuns, as sqlc orders them.
func recordArgs(p *dbgen.RecordRunsParams) []any {
	return []any{p.WorkerID, p.Changed, p.Kinds, p.Ids, p.Tasks, p.Attempts, p.Waits, p.Runs, p.Errors, p.Details}
}

// commitUnrecorded commits the end of a claim whose events were refused, without them.
func (cc *claimConn) commitUnrecorded(ctx context.Context, w *claimEnd, refusal *recordRefused) error {
	cc.records = false
	if cc.conn.IsClosed() || cc.conn.PgConn().TxStatus() != 'E' {
		return refusal.err
	}
	if _, err := cc.conn.Exec(ctx, rollBackToRecord); err != nil {
		return err
	}
	tag, err := cc.conn.Exec(ctx, commitHeld)
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered %q", tag)
	}
	if err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	cc.h.out.Recorded(w.events, "", refusal.err)
	return nil
}
