package migrate

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker/internal/schema"
)

// A Ledger is the revisions that are recorded in a schema.
type Ledger struct {
	// Installed says that there is a ledger at all.
	Installed bool
	// Newest is the highest id, 0 if there is none.
	Newest int
	// Revisions are the rows, by id.
	Revisions []Revision
}

// Since are the revisions that l has and before did not, by id.
func (l Ledger) Since(before Ledger) []Revision {
	var added []Revision
	for _, r := range l.Revisions {
		if !slices.ContainsFunc(before.Revisions, func(old Revision) bool { return old.ID == r.ID }) {
			added = append(added, r)
		}
	}
	return added
}

// CheckLedger reads the ledger and changes nothing. Its error is an
// *IncompatibleError if the schema must not be worked on; the Ledger is
// returned then too.
//
// A running worker calls it when it is notified of a migration, since the notification may
// be about another schema.
func CheckLedger(ctx context.Context, pool *pgxpool.Pool, name schema.Name) (Ledger, error) {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	var err error
	for range 5 {
		s := &state{name: name.String()}
		err = readLedger(ctx, db, name, s)
		switch {
		case err == nil && s.foreign():
			return Ledger{}, &LedgerError{Schema: s.name, Columns: s.columns}
		case err == nil:
			return s.ledger(), s.compatible()
		}
		if !notYet(err) {
			break
		}
	}
	return Ledger{}, fmt.Errorf("reading the ledger of schema %q: %w", name, err)
}

func isBreakingHere(id int) bool { return slices.Contains(breakingHere, id) }
