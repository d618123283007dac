package migrate

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
)

// A Lineage says which runtime's version of a revision it is.
type Lineage string

// The lineages.
const (
	Shared  Lineage = "shared"  // the same in every runtime
	Node    Lineage = "node"    // that of graphile-worker for Node.js
	Rust    Lineage = "rust"    // that of graphile_worker for Rust
	Own     Lineage = "gworker" // gworker's
	Unknown Lineage = "unknown" // newer than what this version knows
)

// A Status is what Inspect found.
type Status struct {
	Ledger Ledger
	// Revisions are all up to Newest, and any others that are recorded, by id.
	Revisions []RevisionStatus
	// Missing are the objects that the newest schema has and this one does not. That is
	// normal in a schema that is not up to date.
	Missing []string
	// Refusal, if not nil, is the error with which a run would end before it changes
	// anything, or, if it is a *LockedJobsError, before revision 11. With a
	// *MissingObjectsError a run has nothing to apply and cannot help.
	Refusal error
}

// Pending are the ids of the revisions that a run would apply.
func (s Status) Pending() []int {
	var ids []int
	for _, r := range s.Revisions {
		if r.Pending {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// A RevisionStatus is one revision, recorded or not.
type RevisionStatus struct {
	Revision
	// Recorded says that the ledger has it; At is the zero time otherwise.
	Recorded bool
	// Lineage is that of the applied revision, or of the one that a run would apply.
	Lineage Lineage
	// Pending says that a run would apply it. If it is Recorded as well, its effects are
	// missing, and its row would stay as it is.
	Pending bool
}

// Inspect returns what is recorded and what a run would do. It changes nothing, not even in
// an empty database.
func Inspect(ctx context.Context, pool *pgxpool.Pool, name schema.Name) (Status, error) {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	now, err := source{db: db, schema: name}.read(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("inspecting schema %q: %w", name, err)
	}
	status := Status{Ledger: now.ledger(), Missing: now.missing(), Refusal: now.refusal()}
	pending := now.pending()
	known := make([]int, 0, Newest+len(now.rows))
	for id := 1; id <= Newest; id++ {
		known = append(known, id)
	}
	for _, row := range now.rows {
		if row.ID > Newest {
			known = append(known, row.ID)
		}
	}
	for _, id := range known {
		row, recorded := now.row(id)
		r := RevisionStatus{Revision: row, Recorded: recorded, Pending: slices.Contains(pending, id), Lineage: now.lineage(id)}
		if !recorded {
			r.Revision = Revision{ID: id, Breaking: isBreakingHere(id)}
		}
		status.Revisions = append(status.Revisions, r)
	}
	switch {
	case status.Refusal != nil:
	case len(pending) == 0 && len(status.Missing) > 0:
		status.Refusal = &MissingObjectsError{Schema: name.String(), Missing: status.Missing}
	default:
		status.Refusal, err = lockedGuard(ctx, db, name, now)
	}
	if err != nil {
		return Status{}, fmt.Errorf("inspecting schema %q: %w", name, err)
	}
	return status, nil
}

// lockedGuard returns the error with which revision 11 would fail.
func lockedGuard(ctx context.Context, db *sql.DB, name schema.Name, now *state) (error, error) {
	if !slices.Contains(now.pending(), 11) || !now.objects["column jobs.locked_at timestamptz"] {
		return nil, nil
	}
	var found bool
	if err := queryRow(ctx, db, name, dbgen.LockedJobs, nil, &found); err != nil || !found {
		return nil, err
	}
	return &LockedJobsError{}, nil
}

func (s *state) lineage(id int) Lineage {
	row, recorded := s.row(id)
	switch {
	case id <= 18:
		return Shared
	case id > Known || row.Breaking && id > Newest:
		return Unknown
	case id > Newest:
		return Rust
	case !recorded && s.newest() < id:
		return Own
	case id == nodeMarker && row.Breaking:
		return Node
	case id == 20 && len(s.lacking(objects20)) > 0 && !s.marks.own:
		return Node
	case s.marks.own:
		return Own
	}
	return Rust
}
