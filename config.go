package gworker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/history"
)

// The defaults of Config.
const (
	DefaultConcurrency                  = 10                    // the default of Concurrency
	DefaultPollInterval                 = 2 * time.Second       // the default of PollInterval
	DefaultConnectTimeout               = 30 * time.Second      // the default of ConnectTimeout
	DefaultStatementTimeout             = 30 * time.Second      // the default of StatementTimeout
	DefaultGracefulShutdownAbortTimeout = 5 * time.Second       // the default of GracefulShutdownAbortTimeout
	DefaultHoldTime                     = 50 * time.Millisecond // the default of HoldTime
)

// Config configures a Worker. Every zero value means the default; only Tasks must be given.
// NewWorker validates it, names the field that cannot be used, and keeps a copy, so later
// changes have no effect.
type Config struct {
	// Pool is the connection pool to use; it stays the caller's to close. nil
	// means that the worker opens one of its own from DatabaseURL.
	//
	// A worker uses up to two of its connections at a time, to claim and to write
	// outcomes, and one for each running SQL task. Outside of the pool, and not counted
	// by its MaxConns, the worker has up to four more connections: one for its listener,
	// one for its heartbeat, and two for held claims (see HoldTime). They are made with
	// the pool's configuration: with BeforeConnect, AfterConnect, and then, once,
	// PrepareConn or BeforeAcquire. They are kept as long as they work: MaxConnLifetime,
	// MaxConnIdleTime, AfterRelease, BeforeClose and ConnConfig.OnNotification do not
	// apply to them.
	Pool *pgxpool.Pool

	// DatabaseURL is a connection string in URL or keyword form. It must be
	// empty if Pool is given. Empty without a Pool means libpq's PG*
	// environment variables.
	DatabaseURL string

	// MaxPoolSize bounds the worker's own pool. 0 means Concurrency + 4, unless
	// DatabaseURL says pool_max_conns. It must be 0 if Pool is given. It does not
	// count the connections of the listener, the heartbeat and held claims, four at
	// most.
	MaxPoolSize int

	// Schema is the schema of the queue, any name that PostgreSQL takes; it is
	// quoted where needed. Empty means graphile_worker.
	Schema string

	// Tasks are the tasks that this worker runs, each identifier once. Jobs of other
	// tasks are left to other workers. At least one is needed, unless there are Cron
	// entries: a worker without tasks only adds their jobs.
	Tasks []Task

	// Cron says which jobs the worker adds at which times.
	Cron CronConfig

	// Concurrency is how many jobs run at once. 0 means 10.
	Concurrency int

	// PollInterval is the longest time between two searches for runnable jobs.
	// Notifications make new jobs start at once; polling finds jobs whose time has come
	// and jobs whose notification was lost. 0 means 2 s.
	PollInterval time.Duration

	// ForbiddenFlags are flags whose jobs this worker leaves to others: all jobs with
	// any of them.
	ForbiddenFlags []string

	// ForbiddenFlagsFunc, if not nil, is asked for further forbidden flags
	// before every claim, and before a job with flags starts that has waited in
	// the local queue. It is called by one goroutine at a time, which claims
	// nothing meanwhile, so it should be quick; ctx ends with the worker, and
	// after StatementTimeout. If it returns an error or panics, nothing is
	// claimed, ClaimFailed reports it, and it is called again later.
	ForbiddenFlagsFunc func(ctx context.Context) ([]string, error)

	// AcceptedFlags, unless empty, restrict the worker to jobs with at least one of
	// them. A forbidden flag wins over an accepted one.
	AcceptedFlags []string

	// HoldTime is how long a claim may stay an open transaction, up to 10 s. Jobs that
	// end within this time are never locked: the transaction keeps other workers away
	// from their rows, and one commit finishes all that have ended. A job that runs
	// longer gets a lock and goes on like any other, and jobs of tasks that are known to
	// take more than half the time are locked at once. Short jobs are claimed ahead of
	// the free slots, as many as are expected to run within half the time; those that
	// have not started by its end are free again.
	//
	// If the worker's connection is lost, the rows are free at once. Then another worker
	// may start a job that still runs, until this worker finds out and ends the job's
	// context with ErrJobLost; a job that no other worker has taken goes on. If the
	// worker's process dies, nothing has to be swept, and these jobs lose no attempt.
	//
	// nil means 50 ms. 0 means off: each job is locked before it starts, as Node's and
	// Rust's workers do. Of jobs that were short lately, a claim then takes as many as
	// the slots can start within 25 ms, up to 500, and those that have not started after
	// 100 ms go back. Whatever the time is, so many locked jobs may wait for a slot as the
	// slots finish while claims go to the database and back.
	//
	// Jobs are not held, either, together with a LocalQueue, CompletionDelay, FailureDelay,
	// Recovery.Delay, Recovery.Decide for all tasks, and NoPreparedStatements; with any of
	// these, a HoldTime above 0 is an error. See docs/held-claims.md.
	HoldTime *time.Duration

	// LocalQueue lets the worker claim jobs ahead of its free slots. The zero
	// value is off: a job is claimed when it can start.
	LocalQueue LocalQueueConfig

	// CompletionDelay is how long the outcomes of completed jobs wait for others, in order
	// to be stored together, up to 1 minute. Until then the job's row stays locked, and
	// its named queue, if it has one, waits. 0 means no delay: outcomes are grouped while
	// the previous group is being stored. A shutdown stores them at once.
	CompletionDelay time.Duration
	// FailureDelay is CompletionDelay for jobs that failed.
	FailureDelay time.Duration

	// Now, if not nil, is the clock for the times of jobs, in place of the database's:
	// when a job is due, when it was locked, when a failed one is due again, when a lock
	// is older than 4 hours, and when a job is due that this worker's client adds without
	// a RunAt. Cron uses it, too, in place of the machine's clock. The workers of a queue
	// should use the same clock, see docs/time.md. Heartbeats still use the database's
	// clock, which also decides which workers are dead. Now is called from many
	// goroutines. If it panics, ObserverPanicked reports it, and the worker continues
	// from its last time by the machine's clock.
	Now func() time.Time

	// ConnectTimeout is how long Run waits for an unreachable database when it starts. 0
	// means 30 s. Later it waits without end.
	ConnectTimeout time.Duration

	// StatementTimeout bounds each of the worker's own statements, waiting for
	// a connection of the pool included, and how long a shutdown tries to write
	// the last outcomes. Statements of SQL tasks are not bounded. 0 means 30 s.
	StatementTimeout time.Duration

	// GracefulShutdownAbortTimeout is how long running jobs may go on after
	// Run's context has ended; then their contexts end too, with the cause
	// ErrShutdown. 0 means 5 s.
	GracefulShutdownAbortTimeout time.Duration

	// ShutdownTimeout bounds a whole shutdown: Run returns at most this long after its
	// context has ended, whatever handlers and the database do. Choose a time below that
	// after which the process is killed, which is 30 s in Kubernetes and 10 s in Docker.
	//
	// The contexts of running jobs end after half of it, or after
	// GracefulShutdownAbortTimeout if that is sooner. Jobs that still run after
	// three quarters, or 5 s before the end if that is later, are given up as by
	// Abandon: they go back to the queue, and Run does not wait for their handlers,
	// which may overlap with the jobs' next runs if the process goes on. Jobs whose
	// outcomes cannot be written in time are recovered by other workers
	// (docs/recovery.md).
	//
	// 0 means no bound for handlers that ignore their contexts. Without such handlers,
	// a shutdown takes GracefulShutdownAbortTimeout and one StatementTimeout at most,
	// and 5 s if no job runs.
	ShutdownTimeout time.Duration

	// ShutdownReturnDelay is how long jobs that a shutdown interrupts wait before they
	// can run again. They get their attempt back. 0 means no wait.
	ShutdownReturnDelay time.Duration

	// BeforeRun are called in order for each job before its middleware and handler, and
	// may skip it, fail it, or change its payload. The first that skips or fails it
	// decides; the rest are not called. They run in the job's slot and with its context.
	// A panic fails the attempt.
	BeforeRun []func(context.Context, *RawJob) BeforeRunDecision

	// AfterRun are called in order for each job that was run, before its outcome is
	// stored, and may change it; each sees the decision of the previous one. They are not
	// called for jobs that BeforeRun has skipped or failed. A job that the handler has
	// completed in a transaction stays complete. A panic fails the attempt.
	AfterRun []func(context.Context, *RawJob, RunResult) AfterRunDecision

	// Middleware wraps the handlers of all tasks; the first is the outermost.
	// TaskOptions.Middleware is inside of it.
	Middleware []Middleware

	// NoPreparedStatements sends statements without preparing them, as
	// transaction-pooling proxies such as PgBouncer need it. By default each
	// statement is prepared once per connection. The listener needs a real
	// session nevertheless: see ListenDatabaseURL and NoListen.
	NoPreparedStatements bool

	// ListenDatabaseURL is a connection string that reaches the server without the proxy
	// that the pool uses. The listener uses it, since LISTEN needs a session, and so does
	// the heartbeat, which must not wait for a busy proxy. While the server cannot be
	// reached by it, the heartbeat connects like the pool, and polling replaces the
	// listener. It must lead to the same database, which Run checks. Empty means to
	// connect like the pool.
	ListenDatabaseURL string

	// NoListen turns the listener off: new jobs are found only by polling, and the ledger
	// is read every HeartbeatInterval to find out whether this worker must stop because
	// of a breaking migration (ErrBreakingMigration). It is for servers that can only be
	// reached through a proxy. ListenDatabaseURL must then be empty.
	NoListen bool

	// NoMigrations leaves the schema as it is. By default Run installs it, or
	// brings it up to date, before the first claim.
	NoMigrations bool

	// Recovery configures the worker's heartbeat, and how it puts the jobs of dead
	// workers back into the queue. The zero value is on, with the defaults.
	Recovery RecoveryConfig

	// History is how much is recorded about jobs, in tables next to the queue's own that
	// Run makes (docs/history.md). Empty means history.Failures. With history.Off, and
	// no task that has another TaskOptions.History, no tables are made. If the worker's
	// role may not make them, SchemaWarning says what helps, and nothing is recorded.
	History history.Level

	// HistoryRetention is how long records are kept. All workers of a queue should have
	// the same, as each drops what is older.
	HistoryRetention history.Retention

	// HistoryCap is how many events a second this worker records of one task; those
	// beyond are counted and reported by HistoryDropped. 0 means 100.
	HistoryCap int

	// BeforeAdd are called for each job that the worker's own client adds, Worker.Client
	// and, in handlers, Job.Client, as ClientConfig.BeforeAdd says. They are also called
	// for the jobs of Cron, with the payload as a json.RawMessage; an error is then
	// reported as CronItemFailed.
	BeforeAdd []func(ctx context.Context, spec *JobSpec) error

	// Logger gets the worker's log: a line at info for each job, failures at error;
	// docs/events.md lists all lines. nil means slog.Default() at the time of NewWorker.
	// For no log, use slog.New(slog.DiscardHandler). Its handler is called from many
	// goroutines at once, as slog requires of handlers. A panic in it, or a
	// runtime.Goexit, is caught and reported to observers as ObserverPanicked. A handler
	// that is not one of slog's own is asked at most every 10 ms whether a level is
	// enabled.
	Logger *slog.Logger

	// Observers get every event (see package event), from many goroutines at once. The
	// worker waits for them, so they should be quick. A panic in one, or a
	// runtime.Goexit, is caught and reported as ObserverPanicked.
	Observers []func(event.Event)
}

// validate returns the configuration with its defaults filled in.
func (c Config) validate() (Config, error) {
	durations := []struct {
		name    string
		value   *time.Duration
		initial time.Duration
	}{
		{"PollInterval", &c.PollInterval, DefaultPollInterval},
		{"ConnectTimeout", &c.ConnectTimeout, DefaultConnectTimeout},
		{"StatementTimeout", &c.StatementTimeout, DefaultStatementTimeout},
		{"GracefulShutdownAbortTimeout", &c.GracefulShutdownAbortTimeout, DefaultGracefulShutdownAbortTimeout},
		{"ShutdownTimeout", &c.ShutdownTimeout, 0},
		{"ShutdownReturnDelay", &c.ShutdownReturnDelay, 0},
	}
	for _, d := range durations {
		if *d.value < 0 {
			return c, problem("Config."+d.name, "is %s: it cannot be negative", *d.value)
		}
		if *d.value == 0 {
			*d.value = d.initial
		}
	}
	const mostSlots = 100_000
	switch {
	case c.Concurrency < 0 || c.Concurrency > mostSlots:
		return c, problem("Config.Concurrency", "is %d: it can be 1 to %d, or 0 for the default", c.Concurrency, mostSlots)
	case c.Concurrency == 0:
		c.Concurrency = DefaultConcurrency
	}
	switch {
	case c.MaxPoolSize < 0:
		return c, problem("Config.MaxPoolSize", "is %d: it cannot be negative", c.MaxPoolSize)
	case c.MaxPoolSize != 0 && c.Pool != nil:
		return c, problem("Config.MaxPoolSize", "is given as well as Config.Pool, whose own limit counts")
	case c.MaxPoolSize == 1:
		return c, problem("Config.MaxPoolSize", "is 1: a worker needs at least 2 connections")
	case c.MaxPoolSize == 0 && c.Pool == nil && !strings.Contains(c.DatabaseURL, "pool_max_conns"):
		c.MaxPoolSize = c.Concurrency + 4
	}
	if c.NoListen && c.ListenDatabaseURL != "" {
		return c, problem("Config.ListenDatabaseURL", "is given as well as Config.NoListen: give one of them")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	var err error
	if c.Recovery, err = c.Recovery.validate(); err != nil {
		return c, err
	}
	if c, err = c.validateClaims(); err != nil {
		return c, err
	}
	if c.HoldTime, err = c.validateHold(); err != nil {
		return c, err
	}
	if c, err = c.validateHistory(); err != nil {
		return c, err
	}
	if err := checkInterceptors("Config.BeforeAdd", c.BeforeAdd); err != nil {
		return c, err
	}
	if err := c.validateInterceptors(); err != nil {
		return c, err
	}
	return c, c.validateTasks()
}

func (c Config) validateTasks() error {
	if len(c.Tasks) == 0 && c.Cron.Crontab == "" && len(c.Cron.Items) == 0 {
		return problem("Config.Tasks", "is empty: a worker needs at least one task")
	}
	seen := make(map[string]int, len(c.Tasks))
	for i, task := range c.Tasks {
		field := fmt.Sprintf("Config.Tasks[%d]", i)
		if task.refused != nil {
			return fmt.Errorf("%s%s: %w", field, ofTask(task.identifier), task.refused)
		}
		if task.identifier == "" {
			return problem(field, "has no identifier")
		}
		if err := checkText(field+"'s identifier", task.identifier, maxTaskLength); err != nil {
			return err
		}
		if task.raw == nil {
			return problem(field, "(%q) has no handler", task.identifier)
		}
		if err := task.options.validate(field + "'s TaskOptions"); err != nil {
			return err
		}
		if first, ok := seen[task.identifier]; ok {
			return problem(field, "has the identifier %q, as Config.Tasks[%d] has", task.identifier, first)
		}
		seen[task.identifier] = i
	}
	return nil
}

// abortTimeout is how long after the beginning of a shutdown the contexts of jobs end.
func (c Config) abortTimeout() time.Duration {
	if c.ShutdownTimeout == 0 {
		return c.GracefulShutdownAbortTimeout
	}
	return min(c.GracefulShutdownAbortTimeout, c.ShutdownTimeout/2)
}

// giveUpAfter is how long after that jobs are waited for; 0 is without end. What is
// left is for the outcomes.
func (c Config) giveUpAfter() time.Duration {
	return c.ShutdownTimeout - min(c.ShutdownTimeout/4, 5*time.Second)
}
