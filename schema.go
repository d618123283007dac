package gworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
)

// SchemaStatus is what Client.SchemaStatus finds.
type SchemaStatus struct {
	// Installed says that the schema has a ledger of revisions.
	Installed bool
	// Newest is the highest revision in the ledger, 0 if there is none.
	Newest int
	// Revisions are those that this version knows, and whatever else the ledger has, by
	// id.
	Revisions []RevisionStatus
	// Missing are the objects that Migrate would find missing if it had nothing to apply.
	// In a schema that is not up to date, some are.
	Missing []string
	// Refusal, if not nil, is the error that Migrate would return before it
	// has changed anything, or, if it is a *LockedJobsError, before revision
	// 11. If it is a *gworkertype.MissingObjectsError, Migrate has nothing to apply and
	// could not help.
	Refusal error
}

// Pending are the ids of the revisions that Migrate would apply.
func (s SchemaStatus) Pending() []int {
	var ids []int
	for _, r := range s.Revisions {
		if r.Pending {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// RevisionStatus is one revision of a SchemaStatus.
type RevisionStatus struct {
	// ID is the number of the revision.
	ID int
	// Recorded says that the ledger has it.
	Recorded bool
	// At is when it was applied; zero if it is not Recorded.
	At time.Time
	// Breaking says that workers which do not know the revision must stop.
	Breaking bool
	// Lineage says whose content is there, or would be after Migrate.
	Lineage Lineage
	// Pending says that Migrate would apply it. Where it is Recorded as well, its
	// effects do not show, and the row would stay as it is.
	Pending bool
}

// Lineage says whose content a revision of the schema has.
type Lineage string

// The lineages.
const (
	LineageShared  Lineage = "shared"  // the same in every runtime
	LineageNode    Lineage = "node"    // as graphile-worker for Node.js has it
	LineageRust    Lineage = "rust"    // as graphile_worker for Rust has it
	LineageOwn     Lineage = "gworker" // as gworker has it
	LineageUnknown Lineage = "unknown" // newer than what this version knows
)

// Migrate installs the schema or brings it up to date. Running it again changes
// nothing, and any number of processes may run it at once. Workers do it by
// themselves when they start.
//
// Observers get a RevisionApplied for each revision, and a SchemaWarning for anything that
// needs attention. The error is an *IncompatibleSchemaError if this version of gworker must
// not work on the schema.
func (c *Client) Migrate(ctx context.Context, observers ...func(event.Event)) error {
	if err := c.reach(ctx); err != nil {
		return err
	}
	consumers := make([]eventstream.Observer, len(observers))
	for i, o := range observers {
		consumers[i] = o
	}
	return migrateSchema(ctx, c.pool, c.options.Schema, eventstream.New(consumers...))
}

// SchemaStatus returns which revisions the schema has, and what Migrate would do.
// It changes nothing, and works on a database without the schema too.
func (c *Client) SchemaStatus(ctx context.Context) (SchemaStatus, error) {
	if err := c.reach(ctx); err != nil {
		return SchemaStatus{}, err
	}
	found, err := migrate.Inspect(ctx, c.pool, c.options.Schema)
	return schemaStatus(found), err
}

func schemaStatus(found migrate.Status) SchemaStatus {
	return SchemaStatus{
		Installed: found.Ledger.Installed, Newest: found.Ledger.Newest, Missing: found.Missing, Refusal: found.Refusal,
		Revisions: converted(found.Revisions, func(r migrate.RevisionStatus) RevisionStatus {
			return RevisionStatus{
				ID: r.ID, Recorded: r.Recorded, At: r.At, Breaking: r.Breaking, Lineage: Lineage(r.Lineage), Pending: r.Pending,
			}
		}),
	}
}

func migrateSchema(ctx context.Context, pool *pgxpool.Pool, name schema.Name, events *eventstream.Stream) error {
	_, err := migrate.Up(ctx, pool, migrate.Options{
		Schema: name,
		OnApplied: func(r migrate.Revision) {
			events.Emit(event.RevisionApplied{Schema: name.String(), Revision: r.ID, Breaking: r.Breaking})
		},
		OnWarning: func(message string) {
			events.Emit(event.SchemaWarning{Schema: name.String(), Message: message})
		},
	})
	return err
}

// prepareSchema migrates the schema, or checks that it can be used as it is.
func (w *Worker) prepareSchema(ctx context.Context) (migrate.Ledger, error) {
	if !w.config.NoMigrations {
		if err := migrateSchema(ctx, w.pool, w.options.Schema, w.events); err != nil {
			return migrate.Ledger{}, err
		}
	}
	ledger, err := migrate.CheckLedger(ctx, w.pool, w.options.Schema)
	if err == nil && !ledger.Installed {
		err = fmt.Errorf("schema %q is not installed, and Config.NoMigrations keeps this worker from installing it", w.options.Schema)
	}
	if err != nil {
		return ledger, err
	}
	found, err := w.client.lookAtSchema(ctx)
	if err != nil {
		return ledger, err
	}
	err = w.reached(found)
	w.warnOfHidden(err)
	return ledger, err
}

// reached notes what was found about the schema. The error is a *HiddenRowsError.
func (w *Worker) reached(found dbgen.SchemaReachRow) error {
	if found.Ruled {
		w.completer.Ruled()
	}
	return w.client.schema.hidden(found, true)
}

// warnOfHidden reports rows that row level security hides.
func (w *Worker) warnOfHidden(err error) (is bool) {
	var hidden *HiddenRowsError
	if is = errors.As(err, &hidden); is {
		w.events.Emit(event.SchemaWarning{Schema: hidden.Schema, Message: hidden.Error()})
	}
	return is
}
