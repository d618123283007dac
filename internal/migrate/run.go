package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/wait"
)

// triesWithoutProgress is how often a run tries again if no process has made progress.
const triesWithoutProgress = 6

// schemaFile makes the schema; goose passes over it.
const schemaFile = "000000_schema.sql"

// A ledger from before the column: the rows there keep their meaning.
const addBreakingColumn = `alter table graphile_worker.migrations
  add column if not exists breaking boolean not null default false`

// run is one call of Up.
type run struct {
	options Options
	source  source
	applied []int
	told    *state // the ledger, only, after the last revision that was applied
}

// untilDone applies what is pending until nothing is, however often another process is
// faster.
func (r *run) untilDone(ctx context.Context) (now *state, err error) {
	best, tries, waits := -1, 0, retry.MigrationBackoff()
	for {
		next, err := r.source.read(ctx)
		if err != nil {
			return now, err
		}
		now = next
		if err := now.refusal(); err != nil {
			return now, err
		}
		if len(now.pending()) == 0 {
			return now, nil
		}
		if at := now.applied(); at > best {
			best, tries = at, 0
			waits.Reset()
		}
		err = r.apply(ctx, now)
		switch {
		case err == nil && tries > 0:
			// Everything was applied, twice, and its effects are still missing.
			return r.incomplete(ctx, now)
		case err != nil && !raced(err):
			return now, r.lostColumns(ctx, lockedJobs(err))
		case err != nil && tries == triesWithoutProgress:
			return now, fmt.Errorf("another process seems to be migrating too, but no further, "+
				"or the ledger has lost rows (it records revisions up to %d): %w", now.newest(), err)
		}
		tries++
		if err == nil {
			continue
		}
		if err := wait.Sleep(ctx, waits.NextBackOff()); err != nil {
			return now, err
		}
	}
}

// incomplete is the error of a run whose revisions have left objects missing.
func (r *run) incomplete(ctx context.Context, before *state) (*state, error) {
	now, err := r.source.read(ctx)
	if err != nil {
		return before, err
	}
	if len(now.pending()) == 0 {
		return now, nil
	}
	return now, &MissingObjectsError{Schema: r.options.Schema.String(), Missing: now.missing()}
}

// lostColumns names the missing columns because of which a revision failed: revisions make
// missing tables and functions again, but not missing columns of existing tables.
func (r *run) lostColumns(ctx context.Context, err error) error {
	if sqlState(err) != pgerrcode.UndefinedColumn {
		return err
	}
	now, readErr := r.source.read(ctx)
	if readErr != nil || now.newest() < 18 {
		return err
	}
	if lost := now.lostColumns(); len(lost) > 0 {
		return &MissingObjectsError{Schema: r.options.Schema.String(), Missing: lost, Err: err}
	}
	return err
}

// apply lets goose apply what is pending.
func (r *run) apply(ctx context.Context, now *state) error {
	if err := r.prepare(ctx, now); err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectCustom, r.source.db, r.options.Schema.FS(db.Migrations),
		goose.WithStore(store{schema: r.options.Schema}),
		goose.WithDisableGlobalRegistry(true),
	)
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results = partial.Applied
		err = &revisionError{id: int(partial.Failed.Source.Version), err: partial.Err}
	}
	if tellErr := r.tell(ctx, results); err == nil {
		err = tellErr
	}
	return err
}

// tell reports what was applied, as it is in the ledger.
func (r *run) tell(ctx context.Context, results []*goose.MigrationResult) error {
	if len(results) == 0 {
		return nil
	}
	// Even if the run was cancelled meanwhile: the revisions are applied.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	now := &state{}
	if err := readLedger(ctx, r.source.db, r.options.Schema, now); err != nil {
		return err
	}
	r.told = now
	for _, result := range results {
		id := int(result.Source.Version)
		if !slices.Contains(r.applied, id) {
			r.applied = append(r.applied, id)
		}
		if row, ok := now.row(id); ok && r.options.OnApplied != nil {
			r.options.OnApplied(row)
		}
	}
	return nil
}

// prepare makes what has to exist before the first file runs.
func (r *run) prepare(ctx context.Context, now *state) error {
	switch {
	case !now.hasSchema:
		text, err := fs.ReadFile(r.options.Schema.FS(db.Migrations), schemaFile)
		if err != nil {
			return fmt.Errorf("reading the migrations: %w", err)
		}
		if _, err := r.source.db.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("creating the schema: %w", err)
		}
	case now.hasLedger && !now.hasBreaking:
		if err := r.extendLedger(ctx); err != nil {
			return fmt.Errorf(`adding column "breaking" to the ledger: %w`, err)
		}
	}
	return nil
}

func (r *run) extendLedger(ctx context.Context) error {
	tx, err := r.source.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, r.options.Schema.Render(addBreakingColumn)); err != nil {
		return err
	}
	ids := make([]int32, len(breakingHere))
	for i, id := range breakingHere {
		ids[i] = int32(id)
	}
	text := r.options.Schema.Render(dbgen.MarkBreaking)
	if _, err := tx.ExecContext(ctx, text, pgx.QueryExecModeExec, ids); err != nil {
		return err
	}
	return tx.Commit()
}

// revisionError says which revision could not be applied.
type revisionError struct {
	id  int
	err error
}

func (e *revisionError) Error() string { return fmt.Sprintf("applying revision %d: %v", e.id, e.err) }
func (e *revisionError) Unwrap() error { return e.err }

// lockedJobs is revision 11's guard by its name.
func lockedJobs(err error) error {
	var failed *revisionError
	if errors.As(err, &failed) && failed.id == 11 && sqlState(err) == pgerrcode.DivisionByZero {
		return &LockedJobsError{Err: err}
	}
	return err
}
