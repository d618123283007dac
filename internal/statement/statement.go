// Package statement runs what sqlc generated from db/queries: every text is rendered
// once for the configured schema, has its own time-out, is named in its errors, and is
// prepared once per connection unless that is turned off.
//
// A pgx pool, connection or transaction, or a *sql.Tx of any driver, comes in; a
// dbgen.DBTX goes out. The one thing not to break: a statement's context ends only after
// its result was read, so that no row is lost between the server's answer and its
// reader.
package statement

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/gworkertype"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
)

// DefaultTimeout is the default of Options.Timeout.
const DefaultTimeout = 30 * time.Second

// Options say how statements are run.
type Options struct {
	// Schema is the schema of the queue; the zero value is graphile_worker.
	Schema schema.Name
	// Timeout bounds each statement, the wait for a pooled connection
	// included. Zero means DefaultTimeout.
	Timeout time.Duration
	// Unprepared sends every statement without a name, for proxies that give a
	// session's transactions to different server connections.
	Unprepared bool
}

// Set is the program's statements, rendered for one schema. It is made once
// and safe for concurrent use.
type Set struct {
	options  Options
	rendered map[string]string // nil for the default schema
	check    Check             // nil: nothing is to be checked
	noLoad   bool              // payloads are not read
}

// Check is asked before each statement; its error is the statement's. The DB is where
// the statement is to run.
type Check func(ctx context.Context, db DB) error

// NewSet renders every statement of dbgen for the schema.
func NewSet(o Options) *Set {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	s := &Set{options: o}
	if !o.Schema.IsDefault() {
		s.rendered = make(map[string]string, len(dbgen.Texts))
		for _, text := range dbgen.Texts {
			s.rendered[text] = o.Schema.Render(text)
		}
	}
	return s
}

// On returns the statements to run on db.
func (s *Set) On(db dbgen.DBTX) *dbgen.Queries { return dbgen.New(s.Bind(db, nil)) }

// OnPool is On for a pool, or for what runs each statement on one of its
// connections. trouble is called with errors that make all connections to the server
// doubtful: IsReadOnly, after a failover, when a pool must leave the server that was
// the primary for the new one; and Unanswered.
func (s *Set) OnPool(pool dbgen.DBTX, trouble func(error)) *dbgen.Queries {
	return dbgen.New(s.Bind(pool, trouble))
}

// Bind is OnPool for those who read the rows of dbgen's texts themselves. trouble
// may be nil.
func (s *Set) Bind(db dbgen.DBTX, trouble func(error)) DB {
	if pool, ok := db.(*pgxpool.Pool); ok {
		db = PerStatement(pgxPool{pool})
	}
	return DB{set: s, db: db, trouble: trouble}
}

// Unprepared returns the same statements, to be sent without preparing them: the
// server then plans each call for its arguments.
func (s *Set) Unprepared() *Set {
	set := *s
	set.options.Unprepared = true
	return &set
}

// Checked returns the same statements, each to be run only if check returns nil.
func (s *Set) Checked(check Check) *Set {
	set := *s
	set.check = check
	return &set
}

// Schema returns the name of the set's schema as it stands in the catalog.
func (s *Set) Schema() string { return s.options.Schema.String() }

// Within returns the same statements, bounded by a time-out of at most this.
func (s *Set) Within(timeout time.Duration) *Set {
	set := *s
	set.options.Timeout = min(set.options.Timeout, timeout)
	return &set
}

// Timeout returns the bound that each statement runs under.
func (s *Set) Timeout() time.Duration { return s.options.Timeout }

// WithoutPayloads returns the same statements, of which those that list or look at jobs
// leave the column alone that this role may not read; it is null then.
func (s *Set) WithoutPayloads() *Set {
	set := *s
	set.noLoad = true
	return &set
}

// Text returns a statement's text for the schema of the set.
func (s *Set) Text(sql string) string {
	text := s.render(sql)
	if s.noLoad {
		text = strings.ReplaceAll(text, "j.payload as payload", "null::json as payload")
	}
	return text
}

func (s *Set) render(sql string) string {
	if s.rendered == nil {
		return sql
	}
	if text, ok := s.rendered[sql]; ok {
		return text
	}
	return s.options.Schema.Render(sql)
}

// Name returns the name under which a statement stands in db/queries.
func Name(sql string) string {
	rest, ok := strings.CutPrefix(sql, "-- name: ")
	if !ok {
		return "statement"
	}
	name, _, _ := strings.Cut(rest, " ")
	return name
}

// TimeoutError is the error of a statement that its own time-out ended.
type TimeoutError = gworkertype.StatementTimeoutError

var errOwnTimeout = errors.New("statement time-out")

// IsReadOnly reports whether err says that the server is read-only.
func IsReadOnly(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == pgerrcode.ReadOnlySQLTransaction
}

// Unanswered reports whether err is that of a statement whose time-out has passed without any
// answer, not even that the statement was cancelled: its connection may be dead, and so may
// others.
func Unanswered(err error) bool {
	var timeout *TimeoutError
	var answer *pgconn.PgError
	return errors.As(err, &timeout) && !errors.As(err, &answer)
}
