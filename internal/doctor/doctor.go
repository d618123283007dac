// Package doctor examines a queue, its schema and its server, and says what is wrong, why
// that matters and what helps.
//
// A pool and a schema's name come in, and neither the server nor the schema need exist; a
// Report with a finding for each check goes out. The one thing not to break: it only reads.
// Each statement runs in a separate read-only transaction, so that the server enforces
// that; outside of those, migrate.Inspect and the search for a pooler run plain selects.
//
// A check is a function that returns one finding. check.go lists the checks in the
// order of the report; limits.go has their limits.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// Options say what to examine. The zero value is the default schema.
type Options struct {
	// Schema is the schema of the queue, which need not exist.
	Schema schema.Name
	// Timeout bounds each statement; zero means statement.DefaultTimeout.
	Timeout time.Duration
	// Unprepared says that the queue's clients do not prepare statements; then it does
	// not matter whether that would work.
	Unprepared bool
	// Now is this machine's clock; nil means time.Now.
	Now func() time.Time

	// aged adds to the age of transactions, for tests.
	aged struct {
		by           time.Duration
		transactions int64
	}
}

// Examine examines the database of a pool, of which it needs one connection, and for a
// moment a second one. A check that cannot be made, for example without the necessary
// rights, is a finding too. The error is for what ends the examination, such as a lost
// connection; the Report then has what was found before.
func Examine(ctx context.Context, pool *pgxpool.Pool, o Options) (Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &checker{
		options: o,
		pool:    pool,
		// Unprepared, so that the doctor itself works behind a pooler.
		set: statement.NewSet(statement.Options{Schema: o.Schema, Timeout: o.Timeout, Unprepared: true}),
	}
	report := Report{Schema: o.Schema.String()}
	if err := c.run(ctx, &report); err != nil {
		return report, fmt.Errorf("examining schema %q: %w", o.Schema, err)
	}
	return report, nil
}

// checker makes one examination, and has what its checks share.
type checker struct {
	options Options
	pool    *pgxpool.Pool
	set     *statement.Set
	conn    *pgxpool.Conn

	server   dbgen.DoctorServerRow
	settings map[string]setting
	// status is what a migration would find; inspected says that it is known.
	status    migrate.Status
	inspected error
	// tables are those of the schema.
	tables map[string]dbgen.DoctorTablesRow
	cache  cache
}

func (c *checker) run(ctx context.Context, report *Report) error {
	// Before the connection is acquired, since it acquires one itself.
	c.status, c.inspected = migrate.Inspect(ctx, c.pool, c.options.Schema)
	if err := fatal(c.inspected); err != nil {
		return err
	}
	report.Revision = c.status.Ledger.Newest

	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	c.conn = conn
	if err := c.prepare(ctx); err != nil {
		return err
	}
	report.Server = c.server.Version
	report.CheckedAt = time.UnixMicro(c.server.NowUs).UTC()

	for _, one := range c.checks() {
		if !c.applies(one) {
			continue
		}
		found, err := one.run(ctx, c)
		if err := fatal(err); err != nil {
			return err
		}
		if err != nil {
			found = notChecked(err)
		}
		found.ID = one.id
		report.Findings = append(report.Findings, found)
		report.Worst = max(report.Worst, found.Severity)
	}
	return nil
}

// prepare reads what the checks share.
func (c *checker) prepare(ctx context.Context) error {
	return c.read(ctx, func(ctx context.Context, q *dbgen.Queries) error {
		var err error
		c.server, err = q.DoctorServer(ctx)
		if err != nil || c.tooOld() {
			return err
		}
		// Distributions append their own version.
		c.server.Version, _, _ = strings.Cut(c.server.Version, " ")
		settings, err := q.DoctorSettings(ctx)
		if err != nil {
			return err
		}
		c.settings = make(map[string]setting, len(settings))
		for _, s := range settings {
			c.settings[s.Name] = setting{text: s.Setting, unit: s.Unit, source: s.Source}
		}
		tables, err := q.DoctorTables(ctx, c.options.Schema.String())
		if err != nil {
			return err
		}
		c.tables = make(map[string]dbgen.DoctorTablesRow, len(tables))
		for _, t := range tables {
			c.tables[t.Name] = t
		}
		return nil
	})
}

// read runs statements in a read-only transaction.
func (c *checker) read(ctx context.Context, f func(context.Context, *dbgen.Queries) error) error {
	return readOnly(ctx, c.conn.Conn(), func(tx pgx.Tx) error { return f(ctx, c.set.On(tx)) })
}

func readOnly(ctx context.Context, conn *pgx.Conn, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, f)
}

// get runs one statement and returns what it found.
func get[T any](ctx context.Context, c *checker, f func(*dbgen.Queries, context.Context) (T, error)) (T, error) {
	var found T
	err := c.read(ctx, func(ctx context.Context, q *dbgen.Queries) error {
		var err error
		found, err = f(q, ctx)
		return err
	})
	return found, err
}

// getIn is get for a statement about the schema.
func getIn[T any](ctx context.Context, c *checker, f func(*dbgen.Queries, context.Context, string) (T, error)) (T, error) {
	return get(ctx, c, func(q *dbgen.Queries, ctx context.Context) (T, error) { return f(q, ctx, c.options.Schema.String()) })
}

func (c *checker) tooOld() bool { return c.server.VersionNum < 120000 }

// fatal returns the error if it ends the examination, as all errors do except those of a
// statement that the server refused or that took too long.
func fatal(err error) error {
	var answer *pgconn.PgError
	var slow *statement.TimeoutError
	switch {
	case errors.As(err, &slow):
		return nil
	case errors.As(err, &answer) && answer.Severity != "FATAL" && answer.Severity != "PANIC":
		return nil
	}
	return err
}

// notChecked is the finding of a check that could not be made.
func notChecked(err error) Finding {
	f := Finding{
		Severity: Warning,
		What:     "This could not be checked: " + err.Error() + ".",
		Why:      "What is wrong here would go unseen.",
	}
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == pgerrcode.InsufficientPrivilege {
		f.Help = []string{"Run the doctor as the owner of the schema, or as a role that may read it."}
	}
	return f
}
