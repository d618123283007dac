// Package migrate installs the schema and brings it up to date. It runs db/migrations with
// goose, whose store is the ledger that all Graphile Workers share.
//
// A pool and a schema's name come in; a schema in which every object of revision 20
// exists goes out, or an error that names the obstacle. The one thing not to break:
// other runtimes migrate the same schema and do not take our lock, so each revision
// claims its row in the ledger before it does anything else, and a process that finds
// the row taken reads the ledger again and continues from there.
//
// Revisions 1 to 18 are the same in every runtime. 19 and 20 are not, so for those a row in
// the ledger is not enough: they count as applied if the catalog shows their effects (see
// state.applied). gworker never writes a revision above 20.
package migrate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker/internal/schema"
)

const (
	// Newest is the last revision that Up writes.
	Newest = 20
	// Known is the last revision that gworker knows of: what Rust's workers
	// have added after Newest.
	Known = 22
)

// Options say what to migrate and what to call meanwhile. The zero value migrates the
// default schema.
type Options struct {
	// Schema is the schema of the queue; the zero value is graphile_worker.
	Schema schema.Name
	// OnApplied, if not nil, is called for each revision that the run has
	// applied, in their order, from the goroutine that called Up.
	OnApplied func(Revision)
	// OnWarning, if not nil, is called with warnings, none of which needs action at
	// once.
	OnWarning func(string)
}

// A Revision is one row of the ledger.
type Revision struct {
	ID int
	// At is when the revision was applied.
	At time.Time
	// Breaking says that workers which do not know the revision must stop.
	Breaking bool
}

// A Result is what a run has done.
type Result struct {
	// Applied are the revisions that this run has applied, with their rows as
	// they are in the ledger; empty if there was nothing to do.
	Applied []Revision
	// Ledger is the ledger after the run.
	Ledger Ledger
}

// Up applies what is missing and checks that everything is there. It can be
// called by any number of processes at once; they take turns. It needs one
// connection of the pool, and while there is something to apply a second one of
// its own.
//
// The errors that callers tell apart: *IncompatibleError, *ServerVersionError,
// *LockedJobsError and *MissingObjectsError. Revisions that were applied before
// an error stay applied, and are in the Result.
func Up(ctx context.Context, pool *pgxpool.Pool, o Options) (Result, error) {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	r := &run{options: o, source: source{db: db, schema: o.Schema}}

	now, err := r.source.read(ctx)
	if err != nil {
		return Result{}, r.explain(err)
	}
	if err := now.refusal(); err != nil {
		return Result{}, err
	}
	if len(now.pending()) > 0 {
		release, err := lock(ctx, pool, o.Schema)
		if err != nil {
			return Result{}, r.explain(err)
		}
		now, err = r.untilDone(ctx)
		release()
		if err != nil {
			return r.result(now), r.explain(err)
		}
	}
	if missing := now.missing(); len(missing) > 0 {
		return r.result(now), &MissingObjectsError{Schema: o.Schema.String(), Missing: missing}
	}
	r.warnOfNewer(now)
	return r.result(now), nil
}

// explain adds what was being done to an error that does not say so itself.
func (r *run) explain(err error) error {
	if saysItself(err) {
		return err
	}
	return fmt.Errorf("migrating schema %q: %w", r.options.Schema, err)
}

func (r *run) result(now *state) Result {
	result := Result{}
	if r.told != nil && (now == nil || len(now.rows) < len(r.told.rows)) {
		now = r.told // reading has failed: the last ledger that was read
	}
	if now == nil {
		return result
	}
	result.Ledger = now.ledger()
	for _, id := range r.applied {
		if row, ok := now.row(id); ok {
			result.Applied = append(result.Applied, row)
		}
	}
	return result
}

func (r *run) warnOfNewer(now *state) {
	newest := now.newest()
	if newest <= Known || r.options.OnWarning == nil {
		return
	}
	r.options.OnWarning(fmt.Sprintf("schema %q is at revision %d and this worker knows revisions up to %d. "+
		"Nothing newer is marked as breaking, so it goes on; update it when you can.",
		r.options.Schema, newest, Known))
}
