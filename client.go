package gworker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/announce"
	"github.com/gworker/gworker/internal/connect"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/dial"
	recording "github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/store"
)

// ClientConfig configures a Client. The zero value connects as libpq would,
// from the PG* environment variables, to the schema graphile_worker.
type ClientConfig struct {
	// Pool is the pool to use; it stays the caller's to close. nil means that
	// the client opens one of its own from DatabaseURL.
	Pool *pgxpool.Pool

	// DatabaseURL is a connection string in URL or keyword form. It must be
	// empty if Pool is given. Empty without a Pool means the PG* environment
	// variables.
	DatabaseURL string

	// Schema is the schema of the queue. Empty means graphile_worker.
	Schema string

	// StatementTimeout bounds each statement, waiting for a connection of the
	// pool included. 0 means 30 s.
	StatementTimeout time.Duration

	// ConnectTimeout is how long the client's first statement waits for a database
	// that cannot be reached; its error names the server then. 0 means as long as
	// any other statement, see StatementTimeout.
	ConnectTimeout time.Duration

	// NoPreparedStatements sends statements without preparing them, as
	// transaction-pooling proxies such as PgBouncer need it. By default each
	// statement is prepared once per connection.
	NoPreparedStatements bool

	// NoHistory keeps Migrate from making the tables of history, see Config.History, and
	// with them that of unique jobs, see JobSpec.UniqueFor.
	NoHistory bool

	// ActsFor is the name of whoever the program acts for, such as the user of a web page.
	// History has it next to the names of the database's and the operating system's user,
	// in the events of what CompleteJobs, PermanentlyFailJobs, RescheduleJobs, RetryJobs,
	// Cancel, ForceUnlockWorkers and Cleanup do.
	ActsFor string

	// BeforeAdd are called, in order, for each job of AddJob and AddJobs, also inside a
	// transaction: on the caller's goroutine, before anything is sent to the database.
	// Each may change the spec, whose Flags are a copy and whose Payload is the caller's
	// value. An error fails the call, and nothing is added; ErrAddSkipped leaves this
	// job out. A panic is an error. They are not called for jobs that are added by SQL.
	BeforeAdd []func(ctx context.Context, spec *JobSpec) error
}

// JobAdder adds and removes jobs: it is a Client, or a TxClient for one transaction. Code
// that adds jobs can take a JobAdder and leave the choice to its caller.
type JobAdder interface {
	// AddJob adds a job and returns it as stored: see [Client.AddJob].
	AddJob(ctx context.Context, spec JobSpec) (*JobRow, error)
	// AddJobs adds jobs, all or none, and returns them in the order of their specs: see
	// [Client.AddJobs].
	AddJobs(ctx context.Context, specs []JobSpec) ([]*JobRow, error)
	// RemoveJob removes the job with the given key and returns it as it was: see
	// [Client.RemoveJob].
	RemoveJob(ctx context.Context, key string) (*JobRow, error)
}

// Client adds, removes, lists and changes jobs, and administers the queue. It is safe for
// concurrent use.
type Client struct {
	operations
	pool       *pgxpool.Pool
	ownsPool   bool
	dialer     *dial.Dialer   // of its own pool
	statements *statement.Set // run only on a schema that this version may work on
	unchecked  *statement.Set // the same, without that check
	schema     *schemaState
	options    statement.Options
	ownTasks   []string // of the worker that made it, if one did
	announcer  *announce.Announcer
	noHistory  bool
}

// TxClient adds, removes, lists and changes jobs inside one transaction: jobs exist if, and
// only if, it commits, and are then announced to workers. Like its transaction, it may be
// used by one goroutine at a time.
type TxClient struct{ operations }

var (
	_ JobAdder = (*Client)(nil)
	_ JobAdder = (*TxClient)(nil)
)

// NewClient makes a client. It does not connect yet. Errors name the field of
// the configuration that cannot be used.
func NewClient(config ClientConfig) (*Client, error) {
	options, err := statementOptions("ClientConfig", config.Schema, config.StatementTimeout, config.NoPreparedStatements)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout < 0 {
		return nil, problem("ClientConfig.ConnectTimeout", "is %s: it cannot be negative", config.ConnectTimeout)
	}
	if err := checkInterceptors("ClientConfig.BeforeAdd", config.BeforeAdd); err != nil {
		return nil, err
	}
	d, reset := &dial.Dialer{}, func() {}
	pool, owns, err := openPool("ClientConfig", config.Pool, config.DatabaseURL, 0, options, d, func() { reset() })
	if err != nil {
		return nil, err
	}
	reset = pool.Reset
	c := newClient(pool, options, func(error) { pool.Reset() })
	c.ownsPool, c.dialer, c.noHistory, c.actions.By = owns, d, config.NoHistory, config.ActsFor
	c.before = slices.Clone(config.BeforeAdd)
	if limit := config.ConnectTimeout; limit > 0 {
		c.schema.reach = func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			return c.Ping(ctx)
		}
	}
	return c, nil
}

// newClient makes a client on a pool. trouble is called with errors that cast doubt on all
// connections.
func newClient(pool *pgxpool.Pool, options statement.Options, trouble func(error)) *Client {
	set := statement.NewSet(options)
	state := &schemaState{name: options.Schema.String(), asText: options.Unprepared || connect.GoesAsText(pool)}
	checked := set.Checked(state.check)
	queries := operations{queries: checked.OnPool(pool, trouble), reads: reads{set: checked, db: pool, schema: state}}
	announcer := announce.New(pool, set)
	queries.actions = recording.Actions{Schema: state.name, Transaction: func(ctx context.Context, do func(*dbgen.Queries) error) error {
		return checked.Transaction(ctx, pool, func(tx pgx.Tx) (bool, error) {
			err := do(checked.On(tx))
			return err == nil, err
		})
	}}
	queries.inserter = store.NewInserter(checked.OnPool(announcer.DB(), trouble), announcer)
	return &Client{
		operations: queries, pool: pool, statements: checked, unchecked: set, schema: state, options: options, announcer: announcer,
	}
}

// Close waits until all added jobs are announced to workers, and closes the client's own
// pool. It takes at most 5 s, even if the server does not answer; calls that are in progress
// then fail. A pool that was given to the client stays open: close the client first.
func (c *Client) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	c.announcer.Close(ctx)
	if c.ownsPool {
		connect.ClosePool(ctx, c.pool, c.dialer)
	}
}

// closeTimeout bounds Client.Close and Worker.Close.
const closeTimeout = 5 * time.Second

// WithTx returns a client for the transaction tx, which may be of any pool or
// connection to the client's database.
func (c *Client) WithTx(tx pgx.Tx) *TxClient {
	return &TxClient{operations{
		queries: c.statements.On(tx), reads: reads{set: c.statements, db: tx, schema: c.schema},
		now: c.now, before: c.before, holder: c.holder, actions: c.actions.Inside(),
	}}
}

// WithSQLTx is WithTx for a database/sql transaction, of any PostgreSQL driver.
func (c *Client) WithSQLTx(tx *sql.Tx) *TxClient {
	return &TxClient{operations{
		queries: c.statements.OnSQL(tx), reads: reads{set: c.statements, sql: tx, schema: c.schema},
		now: c.now, before: c.before, holder: c.holder, actions: c.actions.Inside(),
	}}
}

// operations implements JobAdder and the methods in client_admin.go and client_list.go, on a
// pool or a transaction.
type operations struct {
	queries  *dbgen.Queries
	reads    reads
	inserter *store.Inserter // adds outside a transaction of the caller's; nil inside
	before   []func(context.Context, *JobSpec) error
	now      func() time.Time // of a worker that goes by its own clock; else nil
	holder   holder           // the worker whose client it is; else nil
	actions  recording.Actions
}

// due fills in the run time of a job that is due now, if the client has its own clock.
func (c *operations) due(s *store.Spec) {
	if c.now != nil && s.RunAt.IsZero() {
		s.RunAt = c.now()
	}
}

func (c *operations) addOne(ctx context.Context, s store.Spec) (*JobRow, error) {
	c.releaseKeys(s)
	if c.inserter != nil {
		row, err := c.inserter.Add(ctx, s)
		return (*JobRow)(row), err
	}
	row, err := store.Add(ctx, c.queries, s)
	return (*JobRow)(row), err
}

func (c *operations) addAll(ctx context.Context, specs []store.Spec, preserve bool) ([]*JobRow, error) {
	c.releaseKeys(specs...)
	if c.inserter != nil {
		rows, err := c.inserter.AddAll(ctx, specs, preserve)
		return jobRows(rows), err
	}
	rows, err := store.AddAll(ctx, c.queries, specs, preserve)
	return jobRows(rows), err
}

// AddJob adds a job and returns it as stored. If a job with the spec's key
// exists, the spec's KeyMode decides. If the spec has a UniqueFor and the same job was added
// less than that ago, nothing is added or changed, and the row is that job's, with its
// Duplicate set. A spec that cannot be stored is refused
// with a *FieldError before the database is asked. A job that an interceptor
// skips is an error, ErrAddSkipped (see ClientConfig.BeforeAdd).
//
// A Client returns once the job is committed. The commit announces the job to workers or,
// while this client adds many jobs, a notification for several of them follows within a few
// milliseconds (docs/adding.md). It is not an error if that cannot be sent: workers find the
// job by polling.
func (c *operations) AddJob(ctx context.Context, spec JobSpec) (*JobRow, error) {
	given := spec.Task
	spec, err := c.beforeAdd(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("adding a job%s: %w", ofTask(given), err)
	}
	encoded, err := spec.encode("JobSpec")
	if err != nil {
		return nil, fmt.Errorf("adding a job%s: %w", ofTask(spec.Task), err)
	}
	c.due(&encoded)
	row, err := c.addOne(ctx, encoded)
	if err != nil {
		return nil, fmt.Errorf("adding a job%s: %w", ofTask(spec.Task), err)
	}
	return row, nil
}

// ofTask is how an error names a task, whose name may be too long, or empty.
func ofTask(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" of task %.*q", maxTaskLength, name)
}

// AddJobs adds any number of jobs in one statement, all of them or none, and
// returns them as stored, in the order of the specs. All specs with a Key must have
// the same KeyMode, KeyReplace or KeyPreserveRunAt, and no two the same Key. A spec with
// UniqueFor that adds nothing has a row with a Duplicate; of specs that are the same, the
// first is added.
//
// In one rare case there are fewer rows than specs: if another session has locked the row
// of a spec's key at that moment. Then the error is ErrKeyBusy, and only the returned jobs
// were added; in a caller's transaction, the caller decides whether to commit them.
//
// There are also fewer rows if interceptors skip some of the specs (see
// ClientConfig.BeforeAdd). Then the error is ErrAddSkipped, and the other jobs were added.
func (c *operations) AddJobs(ctx context.Context, specs []JobSpec) ([]*JobRow, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	kept, places, err := c.beforeAddAll(ctx, specs)
	if err != nil {
		return nil, fmt.Errorf("adding %d jobs: %w", len(specs), err)
	}
	var skipped error
	if n := len(specs) - len(kept); n > 0 {
		skipped = fmt.Errorf("adding %d jobs: %d were left out: %w", len(specs), n, ErrAddSkipped)
	}
	if len(kept) == 0 {
		return nil, skipped
	}
	encoded, err := encodeAll(kept, places)
	if err != nil {
		return nil, fmt.Errorf("adding %d jobs: %w", len(specs), err)
	}
	preserve := false
	for i := range encoded {
		c.due(&encoded[i])
		if encoded[i].Key != "" {
			preserve = KeyMode(encoded[i].KeyMode) == KeyPreserveRunAt // that of all
		}
	}
	rows, err := c.addAll(ctx, encoded, preserve)
	if err != nil {
		return nil, fmt.Errorf("adding %d jobs: %w", len(specs), err)
	}
	if n := len(kept) - len(rows); n > 0 {
		return rows, errors.Join(skipped, fmt.Errorf("adding %d jobs: %d were not added: %w", len(specs), n, ErrKeyBusy))
	}
	return rows, skipped
}

// RemoveJob removes the job with the given key and returns it as it was. A job
// that runs at that moment cannot be removed: it loses its key, and if it fails
// it is not tried again. Without such a job the error is ErrJobNotFound.
func (c *operations) RemoveJob(ctx context.Context, key string) (*JobRow, error) {
	if err := checkText("key", key, maxKeyLength); err != nil {
		return nil, fmt.Errorf("removing a job: %w", err)
	}
	c.releaseKeys(store.Spec{Key: key})
	row, err := store.Remove(ctx, c.queries, key)
	if err != nil {
		return nil, fmt.Errorf("removing the job with key %q: %w", key, err)
	}
	return (*JobRow)(row), nil
}
