package gworker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/connect"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/rights"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// A HiddenRowsError says that row level security hides the rows of the queue's tables
// from the role of a connection, which therefore sees an empty queue. Worker.Run
// returns it, after a SchemaWarning, and so does Client.CheckSchema. If the policies go
// while a worker runs, there is a SchemaWarning within
// RecoveryConfig.HeartbeatInterval, and Run goes on.
type HiddenRowsError struct {
	// Schema is the schema of the queue.
	Schema string
	// Role is the role whose rights count on the connection.
	Role string
	// Owner is the role that owns the table of jobs; row level security does not apply to
	// it.
	Owner string
	// Tables are the tables whose rows are hidden, such as "_private_jobs".
	Tables []string
	// ReadOnly says that the role sees the rows, but no policy lets it update them, or
	// delete them in the table of jobs, so that it can run no job. Only Worker.Run checks
	// that.
	ReadOnly bool
}

// Error names the schema and says what helps.
func (e *HiddenRowsError) Error() string {
	if e.ReadOnly {
		return fmt.Sprintf("role %q cannot change rows of %s in schema %q: row level security is on, and no policy lets it update and delete them. "+
			"Connect as their owner %q, or give the role its rights (%s grant)",
			e.Role, strings.Join(e.Tables, ", "), e.Schema, e.Owner, program.Name)
	}
	return fmt.Sprintf("role %q sees no rows of %s in schema %q: row level security is on, and no policy lets it read them. "+
		"Connect as their owner %q, or give the role its rights (%s grant)",
		e.Role, strings.Join(e.Tables, ", "), e.Schema, e.Owner, program.Name)
}

// CheckSchema checks whether this version of gworker may work on the schema, and whether the
// client's role sees its rows. The error is ErrNotInstalled, an *IncompatibleSchemaError, or
// a *HiddenRowsError, after which the client goes on working.
//
// Each client checks the schema once by itself, before its first statement or that of one of
// its TxClients, and refuses to work on an incompatible one. CheckSchema checks again: call
// it in a long-lived service when a Listener on the channel worker:migrate is notified of a
// migration. After that, the client refuses or works according to its result. A worker does
// that for its own client.
func (c *Client) CheckSchema(ctx context.Context) error {
	found, err := c.lookAtSchema(ctx)
	if err != nil {
		return err
	}
	return c.schema.hidden(found, false)
}

func (c *Client) lookAtSchema(ctx context.Context) (dbgen.SchemaReachRow, error) {
	found, err := c.schema.look(ctx, c.unchecked.On(c.pool))
	var settings *connect.SettingError
	switch {
	case errors.As(err, &settings):
		return found, settings
	case err != nil:
		return found, fmt.Errorf("checking schema %q: %w", c.schema.name, err)
	case !found.Installed:
		return found, fmt.Errorf("checking schema %q: %w", c.schema.name, ErrNotInstalled)
	}
	return found, nil
}

// hidden returns what row level security hides from a role, as a *HiddenRowsError, or nil.
// runs says that the role needs what a worker does.
func (s *schemaState) hidden(found dbgen.SchemaReachRow, runs bool) error {
	tables, readOnly := found.Hidden, false
	if tables == "" && runs {
		tables, readOnly = found.ReadOnly, true
	}
	if tables == "" {
		return nil
	}
	return &HiddenRowsError{Schema: s.name, Role: found.Role, Owner: found.Owner, Tables: strings.Split(tables, ","), ReadOnly: readOnly}
}

// schemaState is what a client knows about its schema's revisions.
type schemaState struct {
	name    string
	asText  bool                          // arguments and results go as text
	reach   func(context.Context) error   // nil: no matter how long the database is waited for
	verdict atomic.Pointer[schemaVerdict] // nil until the first look
}

// schemaVerdict says why the schema must not be worked on; nil is no reason.
type schemaVerdict struct {
	refusal        error
	payloadsHidden bool // from the role that looked
}

// check checks the schema before the client's first statement. If that fails, the statement
// itself will say why.
func (s *schemaState) check(ctx context.Context, db statement.DB) error {
	if v := s.verdict.Load(); v != nil {
		return v.refusal
	}
	if s.reach != nil {
		if err := s.reach(ctx); err != nil {
			return err
		}
	}
	_, _ = s.look(ctx, db.Unchecked())
	if v := s.verdict.Load(); v != nil {
		return v.refusal
	}
	return nil
}

// reads are the statements with which operations look at jobs.
type reads struct {
	set    *statement.Set
	db     dbgen.DBTX // of pgx, or
	sql    *sql.Tx    // of database/sql
	schema *schemaState
}

func (r reads) bind(set *statement.Set) statement.DB {
	if r.sql != nil {
		return set.BindSQL(r.sql)
	}
	return set.Bind(r.db, nil)
}

// jobs are the statements that read jobs with their payloads, as far as the role may.
func (r reads) jobs(ctx context.Context) *dbgen.Queries {
	db := r.bind(r.set)
	_ = r.schema.check(ctx, db) // the statement says so, too
	if v := r.schema.verdict.Load(); v != nil && v.payloadsHidden {
		return dbgen.New(r.bind(r.set.WithoutPayloads()))
	}
	return dbgen.New(db)
}

// list are the statements that list jobs, to be planned anew for each call.
func (r reads) list(withPayloads bool) *dbgen.Queries {
	set := r.set
	if r.sql == nil {
		set = set.Unprepared()
	}
	if !withPayloads {
		set = set.WithoutPayloads()
	}
	return dbgen.New(r.bind(set))
}

// look reads the ledger and keeps the verdict. It runs nothing that could fail for lack of
// rights, which would abort a caller's transaction.
func (s *schemaState) look(ctx context.Context, q *dbgen.Queries) (dbgen.SchemaReachRow, error) {
	settings, err := q.SessionSettings(ctx)
	if err != nil {
		return dbgen.SchemaReachRow{}, err
	}
	if refusal := connect.CheckSettings(settings, s.asText); refusal != nil {
		s.refuse(refusal)
		return dbgen.SchemaReachRow{}, refusal
	}
	found, err := q.SchemaReach(ctx, s.name)
	if err != nil || !found.Installed {
		return found, err
	}
	if found.PoliciesFail {
		refusal := connect.RowSecurityOff()
		s.refuse(refusal)
		return found, refusal
	}
	if !found.Readable { // the role was not given this right
		s.verdict.CompareAndSwap(nil, &schemaVerdict{payloadsHidden: found.PayloadsHidden})
		return found, nil
	}
	revisions, err := q.NewestRevisions(ctx)
	if err != nil {
		return found, err
	}
	refusal := migrate.Compatible(int(revisions.Newest), int(revisions.Breaking))
	s.verdict.Store(&schemaVerdict{refusal: refusal, payloadsHidden: found.PayloadsHidden})
	return found, refusal
}

// refuse keeps a verdict that was found elsewhere.
func (s *schemaState) refuse(refusal error) { s.verdict.Store(&schemaVerdict{refusal: refusal}) }

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
	events := eventstream.New(consumers...)
	if err := migrateSchema(ctx, c.pool, c.options.Schema, events); err != nil || c.noHistory {
		return err
	}
	return c.installHistory(ctx, events)
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

// Rights are what a role may do with a queue that it does not own (docs/security.md).
type Rights string

// The rights that Client.Grant gives.
const (
	// RightsProducer: adds jobs, by clients of any runtime or by SQL, and replaces
	// jobs whose keys it knows. It sees no other job, and cannot remove any.
	RightsProducer Rights = "producer"
	// RightsWorker: runs jobs, adds, changes and removes them, and keeps a crontab.
	// It cannot migrate the schema.
	RightsWorker Rights = "worker"
	// RightsReader: sees jobs, queues and workers, but no payloads unless
	// GrantOptions.Payloads says so, and changes nothing.
	RightsReader Rights = "reader"
)

// GrantOptions configure Client.Grant and Client.Revoke.
type GrantOptions struct {
	// Payloads gives a reader the payloads, too. Revoke takes them in any case.
	Payloads bool
	// DryRun changes nothing.
	DryRun bool
}

// Grant gives a role, which must exist, the rights to work with the queue, and returns
// the SQL that it has run, in one transaction. The client's role must own the schema.
// It makes grants and policies, and nothing else; given again they stay as they are. A
// role can have several rights. Policies wait for their tables for 5 s at most.
//
// An error of a role that does not exist, or that owns the queue, is a *FieldError.
func (c *Client) Grant(ctx context.Context, given Rights, role string, o GrantOptions) (sql string, err error) {
	return c.changeRights(ctx, "granting", given, role, o, func(p *rights.Plan, kind rights.Kind) []string {
		kinds := []rights.Kind{kind}
		if o.Payloads {
			kinds = append(kinds, rights.Payloads)
		}
		return p.Grant(kinds...)
	})
}

// Revoke takes from a role what Grant has given it, and returns the SQL. What the role
// has by other rights of Grant's stays.
func (c *Client) Revoke(ctx context.Context, taken Rights, role string, o GrantOptions) (sql string, err error) {
	o.Payloads = false
	return c.changeRights(ctx, "revoking", taken, role, o, func(p *rights.Plan, kind rights.Kind) []string {
		if kind == rights.Reader {
			return p.Revoke(kind, rights.Payloads)
		}
		return p.Revoke(kind)
	})
}

func (c *Client) changeRights(
	ctx context.Context, doing string, which Rights, role string, o GrantOptions, plan func(*rights.Plan, rights.Kind) []string,
) (string, error) {
	kind, err := rights.Parse(string(which))
	switch {
	case err != nil:
		return "", problem("Rights", "%v", err)
	case o.Payloads && kind != rights.Reader:
		return "", problem("GrantOptions.Payloads", "is for readers: a %s needs none", kind)
	}
	status, err := c.SchemaStatus(ctx)
	switch {
	case err != nil:
		return "", err
	case !status.Installed:
		return "", fmt.Errorf("%s rights in schema %q: %w", doing, c.options.Schema, ErrNotInstalled)
	case status.Refusal != nil:
		return "", status.Refusal
	case len(status.Pending()) > 0:
		return "", fmt.Errorf("%s rights in schema %q: it is not up to date (Client.Migrate, or %s migrate, brings it there)",
			doing, c.options.Schema, program.Name)
	}
	p, err := rights.For(ctx, c.queries, c.options.Schema, role)
	switch {
	case errors.Is(err, rights.ErrNoRole), errors.Is(err, rights.ErrIsOwner):
		return "", problem("role", "is %q: %v", role, err)
	case err != nil:
		return "", fmt.Errorf("%s rights in schema %q: %w", doing, c.options.Schema, err)
	}
	statements := plan(p, kind)
	if !o.DryRun {
		if err := rights.Apply(ctx, c.pool, c.statements, statements); err != nil {
			return "", fmt.Errorf("%s rights in schema %q: %w", doing, c.options.Schema, err)
		}
	}
	return rights.Script(statements), nil
}
