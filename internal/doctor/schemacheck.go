package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
)

func checkSchema(_ context.Context, c *checker) (Finding, error) {
	if c.inspected != nil {
		return Finding{}, c.inspected
	}
	ledger := c.status.Ledger
	if !ledger.Installed {
		return Finding{
			Severity: Problem,
			What:     fmt.Sprintf("Schema %q is not installed in database %s.", c.options.Schema, c.server.Database),
			Why:      "There is no queue here. A worker installs it when it starts, if it may.",
			Help:     []string{c.command("migrate"), "-- Or look elsewhere: --schema, --database-url."},
		}, nil
	}
	var incompatible *migrate.IncompatibleError
	var locked *migrate.LockedJobsError
	switch {
	case errors.As(c.status.Refusal, &incompatible):
		return Finding{
			Severity: Problem,
			What:     incompatible.Error(),
			Why:      "This version of gworker would damage the queue, so it refuses to work on it (exit status 57).",
			Help:     []string{"Update gworker."},
		}, nil
	case errors.As(c.status.Refusal, &locked):
		return Finding{
			Severity: Problem,
			What:     fmt.Sprintf("The schema is at revision %d, and jobs are locked. %s", ledger.Newest, locked.Error()),
			Why:      "Workers of this version cannot start here.",
			Help:     []string{"Shut the old workers down, then:", c.command("migrate")},
		}, nil
	case ledger.Newest > migrate.Known:
		return Finding{
			Severity: Warning,
			What:     fmt.Sprintf("The schema is at revision %d, and this version of gworker knows revisions up to %d.", ledger.Newest, migrate.Known),
			Why:      "Nothing newer is marked as breaking, so workers go on. They do not use what is new.",
			Help:     []string{"Update gworker when you can."},
		}, nil
	}
	if pending := c.status.Pending(); len(pending) > 0 {
		return c.pending(pending), nil
	}
	return ok(fmt.Sprintf("Schema %q is at revision %d%s, with nothing to migrate.", c.options.Schema, ledger.Newest, c.lineage())), nil
}

func (c *checker) pending(ids []int) Finding {
	f := Finding{
		Severity: Warning,
		What: fmt.Sprintf("The schema is at revision %d%s, and a migration would apply %s.",
			c.status.Ledger.Newest, c.lineage(), revisions(ids)),
		Why:  "Workers migrate when they start, unless they were told not to. Until then, what needs the new objects does not work.",
		Help: []string{c.command("migrate"), c.command("migrate --status")},
	}
	if _, recovers := c.tables[tableWorkers]; !recovers {
		f.Why += " Without revision 20's, the jobs of a worker that dies wait for 4 hours."
	}
	return f
}

func revisions(ids []int) string {
	if len(ids) == 1 {
		return fmt.Sprintf("revision %d", ids[0])
	}
	return fmt.Sprintf("revisions %d to %d", ids[0], ids[len(ids)-1])
}

// lineage says which runtime's the newest revision is, if the runtimes' differ.
func (c *checker) lineage() string {
	for _, r := range slices.Backward(c.status.Revisions) {
		if !r.Recorded || r.Lineage == migrate.Shared {
			continue
		}
		switch r.Lineage {
		case migrate.Node:
			return " of Node's worker"
		case migrate.Rust:
			return " of Rust's worker"
		case migrate.Own:
			return " of gworker"
		default:
			return ""
		}
	}
	return ""
}

func checkObjects(_ context.Context, c *checker) (Finding, error) {
	if c.inspected != nil {
		return Finding{}, c.inspected
	}
	missing := c.status.Missing
	switch {
	case !c.status.Ledger.Installed:
		return Finding{
			Severity: Problem,
			What:     fmt.Sprintf("Schema %q has tables and no ledger (the table migrations).", c.options.Schema),
			Why:      "It belongs to another program, or it is damaged. A migration would fail on the existing tables.",
			Help:     []string{"Restore the ledger from a backup, or choose another schema."},
		}, nil
	case len(missing) == 0:
		return ok("Every table, column, index, constraint and function is there."), nil
	case len(c.status.Pending()) > 0:
		return ok(fmt.Sprintf("%s missing, which the pending migration brings.", plural(len(missing), "object is", "objects are"))), nil
	}
	return Finding{
		Severity: Problem,
		What:     "Objects are missing or have another type than they should, although the ledger has their revisions: " + listed(missing, "; ") + ".",
		Why:      "Statements of the workers fail, or run without their index.",
		Help:     []string{"Restore them, or let the worker that made the newest revision migrate first.", c.command("migrate --status")},
	}, nil
}

func checkTriggers(ctx context.Context, c *checker) (Finding, error) {
	rows, err := getIn(ctx, c, (*dbgen.Queries).DoctorTriggers)
	if err != nil {
		return Finding{}, err
	}
	var named []string
	for _, r := range rows {
		named = append(named, r.Name+" on "+r.TableName)
	}
	// Revisions before 18 had triggers of their own.
	if len(named) == 0 || c.status.Ledger.Newest < 18 {
		return ok("No trigger is on the queue's tables."), nil
	}
	return Finding{
		Severity: Note,
		What:     fmt.Sprintf("%s on the queue's tables: %s.", plural(len(named), "trigger is", "triggers are"), listed(named, "; ")),
		Why:      "No runtime has triggers there. Each takes part in every claim and outcome, and its errors make them fail.",
		Help:     []string{"drop trigger " + identifier(rows[0].Name) + " on " + c.qualified(rows[0].TableName) + "; -- if nobody needs it"},
	}, nil
}

func checkIndexes(ctx context.Context, c *checker) (Finding, error) {
	names, err := getIn(ctx, c, (*dbgen.Queries).DoctorInvalidIndexes)
	if err != nil {
		return Finding{}, err
	}
	if len(names) == 0 {
		return ok("No index is invalid."), nil
	}
	f := Finding{
		Severity: Warning,
		What:     fmt.Sprintf("%s invalid: %s.", plural(len(names), "index is", "indexes are"), listed(names, ", ")),
		Why:      "An interrupted create or reindex leaves an index that every write updates and no query uses.",
	}
	for _, name := range first(names) {
		f.Help = append(f.Help, "reindex index concurrently "+c.qualified(name)+"; -- or drop index, if its name ends in _ccnew or _ccold")
	}
	return f, nil
}

func checkForeignKeys(ctx context.Context, c *checker) (Finding, error) {
	rows, err := getIn(ctx, c, (*dbgen.Queries).DoctorForeignKeys)
	if err != nil {
		return Finding{}, err
	}
	found := ok("No foreign key points at the jobs.")
	var said []string
	for _, r := range rows {
		name := identifier(r.SchemaName) + "." + identifier(r.TableName)
		severity, text := Warning, fmt.Sprintf("%s of %s, which has an index for it", r.Name, name)
		switch {
		case r.SchemaName == c.options.Schema.String() && r.TableName == "_private_job_retirements":
			severity, text = Note, fmt.Sprintf("%s of Rust's revision 22", r.Name)
			found.Help = append(found.Help, "-- Leave Rust's as it is: its functions rely on it, and the table is small.")
		case !r.Indexed:
			severity, text = Problem, fmt.Sprintf("%s of %s, which has no index for it", r.Name, name)
			found.Help = append(found.Help, "create index concurrently on "+name+" (...); -- the column of the key")
		default:
			found.Help = append(found.Help, "alter table "+name+" drop constraint "+identifier(r.Name)+"; -- keep the job's id without it")
		}
		found.Severity = max(found.Severity, severity)
		said = append(said, text)
	}
	if len(said) == 0 {
		return found, nil
	}
	found.What = fmt.Sprintf("%s at the jobs: %s.", plural(len(said), "foreign key points", "foreign keys point"), listed(said, "; "))
	found.Why = "Each job that ends is deleted, and each delete of a job looks for rows that point at it, one by one: through an index that " +
		"costs about 5 microseconds a job, without one a walk over the whole table. Keys without \"on delete\" make outcomes fail."
	return found, nil
}

func checkUnlogged(_ context.Context, c *checker) (Finding, error) {
	f := Finding{Severity: Warning, Why: "A crash of the server empties unlogged tables, and standbys do not have their rows: jobs are lost."}
	var names []string
	for _, t := range c.byName() {
		if t.Unlogged {
			names = append(names, t.Name)
			f.Help = append(f.Help, "alter table "+c.qualified(t.Name)+" set logged;")
		}
	}
	if len(names) == 0 {
		return ok("All tables are logged."), nil
	}
	f.What = plural(len(names), "table is", "tables are") + " unlogged: " + strings.Join(names, ", ") + "."
	return f, nil
}
