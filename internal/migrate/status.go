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

// A Lineage says whose content a revision has.
type Lineage string

// The lineages.
const (
	Shared  Lineage = "shared"  // the same in every runtime
	Node    Lineage = "node"    // as graphile-worker for Node.js has it
	Rust    Lineage = "rust"    // as graphile_worker for Rust has it
	Own     Lineage = "gworker" // as it is written here
	Unknown Lineage = "unknown" // newer than what is known here
)

// A Status is what Inspect found.
type Status struct {
	Ledger Ledger
	// Revisions are those that are known up to Newest, and whatever else is
	// recorded, by id.
	Revisions []RevisionStatus
	// Missing are the objects that a finished run would find missing if it
	// were finished now. In a schema that is not up to date, that is normal.
	Missing []string
	// Refusal, if not nil, is the error that a run would end with before it
	// has changed anything, or, if it is a *LockedJobsError, before revision
	// 11. If it is a *MissingObjectsError, a run has nothing to apply and
	// could not help.
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
	// Lineage says whose content is there, or would be after a run.
	Lineage Lineage
	// Pending says that a run would apply it. Where it is Recorded as well, its
	// effects do not show, and the row would stay as it is.
	Pending bool
}

// Inspect tells what is recorded and what a run would do. It changes nothing,
// on an empty database neither.
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

// lockedGuard tells what revision 11 would say.
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
