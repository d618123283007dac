package gworker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
)

// The defaults of Config.
const (
	DefaultConcurrency                  = 10
	DefaultPollInterval                 = 2 * time.Second
	DefaultConnectTimeout               = 30 * time.Second
	DefaultStatementTimeout             = 30 * time.Second
	DefaultGracefulShutdownAbortTimeout = 5 * time.Second
	DefaultHoldTime                     = 50 * time.Millisecond
)

// Config configures a Worker. Every zero value is the default; only Tasks must
// be given. NewWorker validates it once and names the field that cannot be
// used; it keeps a copy, so later changes have no effect.
type Config struct {
	// Pool is the connection pool to use; it stays the caller's to close. nil
	// means that the worker opens one of its own from DatabaseURL.
	//
	// A worker needs two connections of it now and then (to claim, and to write
	// outcomes) and one for each running SQL task. In addition to the pool, made from
	// its configuration and not counted by its MaxConns, it has up to four
	// connections: one for its listener, one for its heartbeat, and two for held
	// claims, which do without the pool (see HoldTime). These are made as the
	// pool's are: with BeforeConnect, AfterConnect, and PrepareConn or
	// BeforeAcquire, once, after that. They are kept as long as they work:
	// MaxConnLifetime and MaxConnIdleTime do not concern them, nor do
	// AfterRelease, BeforeClose and ConnConfig.OnNotification.
	Pool *pgxpool.Pool

	// DatabaseURL is a connection string in URL or keyword form. It must be
	// empty if Pool is given. Empty without a Pool means libpq's PG*
	// environment variables.
	DatabaseURL string

	// MaxPoolSize bounds the worker's own pool. 0 means Concurrency + 4, unless
	// DatabaseURL says pool_max_conns. It must be 0 if Pool is given. The
	// connections of the listener, the heartbeat and held claims, four at most,
	// come on top.
	MaxPoolSize int

	// Schema is the schema of the queue, any name that PostgreSQL takes; it is
	// quoted where needed. Empty means graphile_worker.
	Schema string

	// Tasks are the tasks that this worker runs. Jobs of other tasks are left
	// to other workers. At least one is needed, and no identifier twice. A worker
	// with Cron entries may have none: it only adds their jobs.
	Tasks []Task

	// Cron says which jobs the worker adds at which times.
	Cron CronConfig

	// Concurrency is how many jobs run at once. 0 means 10.
	Concurrency int

	// PollInterval is the longest time between two looks for runnable jobs.
	// Notifications make new jobs start at once; polling finds those whose
	// time has come and those whose notification was lost. 0 means 2 s.
	PollInterval time.Duration

	// ForbiddenFlags are flags of jobs that this worker leaves to others: a job
	// with any of them.
	ForbiddenFlags []string

	// ForbiddenFlagsFunc, if not nil, is asked for further forbidden flags
	// before every claim, and before a job with flags starts that has waited in
	// the local queue. It is called by one goroutine at a time, which claims
	// nothing meanwhile, so it should be quick; ctx ends with the worker, and
	// after StatementTimeout. If it returns an error or panics, nothing is
	// claimed, ClaimFailed reports it, and it is called again later.
	ForbiddenFlagsFunc func(ctx context.Context) ([]string, error)

	// AcceptedFlags, if there are any, leave all jobs to others but those with
	// at least one of them. A forbidden flag wins over an accepted one.
	AcceptedFlags []string

	// HoldTime is how long a claim may stay an open transaction, up to 10 s. Jobs
	// that end within it are never locked: nobody else can touch their rows
	// meanwhile, and one commit finishes all that have ended. What runs longer gets
	// its lock written and goes on as an ordinary locked job. Jobs so short are
	// claimed some ahead of the free slots, as many as are expected to be worked
	// off within half the time; those that have not started by its end are free
	// again.
	//
	// Should the worker's connection be lost, the rows are free at once, and a
	// job that still runs may be started by another worker, until this one finds
	// out and ends its context with ErrJobLost; a job that nobody has taken goes
	// on. Should its process die, nothing has to be swept, and no attempt of those
	// jobs is counted.
	//
	// nil means 50 ms. 0 means off: a lock is written for each job before it
	// starts, as Node's and Rust's workers do it; of jobs that took little time
	// lately a claim then takes as many as the slots get to within 25 ms, up to
	// 500, and those that have not started after 100 ms go back. Jobs are not held, either,
	// together with flags, a LocalQueue, CompletionDelay, FailureDelay, Now, tasks
	// with a Concurrency of their own, Recovery.Decide, Recovery.Delay, and
	// NoPreparedStatements; a HoldTime that is given is an error there. See
	// docs/held-claims.md.
	HoldTime *time.Duration

	// LocalQueue lets the worker claim jobs ahead of its free slots. The zero
	// value is off: a job is claimed when it can start.
	LocalQueue LocalQueueConfig

	// CompletionDelay and FailureDelay are how long the outcomes of jobs that
	// completed, or failed, wait for others to be stored with, up to 1 minute.
	// Until then the job's row stays locked and its named queue, if it has one,
	// waits. 0, the default, means not at all: outcomes are grouped while the
	// group before is being stored, which adds no delay. A shutdown stores them
	// at once.
	CompletionDelay time.Duration
	FailureDelay    time.Duration

	// Now, if not nil, is the clock that jobs' times go by, in place of the
	// database's: when a job is due, when it was locked, when a failed one is
	// due again, when a lock is older than 4 hours, and when a job without a
	// RunAt is due that is added through this worker's client. Cron goes by it,
	// too, in place of the machine's clock. Workers of one queue should go by one
	// clock, see docs/time.md. Heartbeats, and who is declared dead, still go by the
	// database's clock. It is called from many goroutines. If it
	// panics, ObserverPanicked reports it, and the time that it told last goes on by
	// the machine's clock.
	Now func() time.Time

	// ConnectTimeout is how long Run waits for a database that cannot be
	// reached when it starts. 0 means 30 s. Later on it waits without end.
	ConnectTimeout time.Duration

	// StatementTimeout bounds each of the worker's own statements, waiting for
	// a connection of the pool included, and how long a shutdown tries to write
	// the last outcomes. Statements of SQL tasks are not bounded. 0 means 30 s.
	StatementTimeout time.Duration

	// GracefulShutdownAbortTimeout is how long running jobs may go on after
	// Run's context has ended; then their contexts end too, with the cause
	// ErrShutdown. 0 means 5 s.
	GracefulShutdownAbortTimeout time.Duration

	// ShutdownTimeout bounds a whole shutdown: so long after Run's context has
	// ended Run returns, whatever handlers and the database do. Choose it below
	// the time after which the process is killed, which is 30 s in Kubernetes and
	// 10 s in Docker.
	//
	// The contexts of running jobs end after half of it, or after
	// GracefulShutdownAbortTimeout if that is sooner. Jobs that still run after
	// three quarters, or 5 s before the end if that is later, are given up as by
	// Abandon: they go back to the queue, and Run does not wait for their
	// handlers, which may overlap with the jobs' next runs if the process lives
	// on. What cannot be written in time is found by other workers
	// (docs/recovery.md).
	//
	// 0 means no bound while handlers run that ignore their contexts. Without
	// those a shutdown takes GracefulShutdownAbortTimeout and one
	// StatementTimeout at most, and 5 s where no job runs.
	ShutdownTimeout time.Duration

	// ShutdownReturnDelay is how long jobs that a shutdown cuts off wait before
	// they can run again. They go back with their attempt restored. 0 means not
	// at all.
	ShutdownReturnDelay time.Duration

	// BeforeRun are asked in turn about each job before anything of it runs, and
	// may skip it, fail it, or change its payload. The first that does not let
	// it go on has the last word. They run in the job's slot and under its
	// context. A panic in one fails the attempt.
	BeforeRun []func(context.Context, *RawJob) BeforeRunDecision

	// AfterRun are asked in turn about each job that was run, before its outcome
	// is stored, and may change it; each sees what the one before it decided.
	// They are not asked about jobs that BeforeRun has skipped or failed. What a
	// transaction of the handler's has completed stays complete. A panic in one
	// fails the attempt, and the job runs again.
	AfterRun []func(context.Context, *RawJob, RunResult) AfterRunDecision

	// Middleware is around the handlers of all tasks, the first outermost, and
	// TaskOptions.Middleware inside of it.
	Middleware []Middleware

	// NoPreparedStatements sends statements without preparing them, as
	// transaction-pooling proxies such as PgBouncer need it. By default each
	// statement is prepared once per connection. The listener needs a real
	// session nevertheless: see ListenDatabaseURL and NoListen.
	NoPreparedStatements bool

	// ListenDatabaseURL is a connection string that leads to the server past a
	// proxy which the pool goes through. The listener uses it, since LISTEN
	// needs a session of its own, and so does the heartbeat, which must not
	// wait for a busy proxy; where the server cannot be reached by it, the
	// heartbeat goes the pool's way and polling replaces the listener. It must
	// lead to the same database: Run checks that. Empty means the pool's way.
	ListenDatabaseURL string

	// NoListen does without the listener: new jobs are found by polling alone,
	// and the ledger is read every HeartbeatInterval to find out whether this
	// worker must stop for a breaking migration (ErrBreakingMigration). For
	// proxies with no way past them. ListenDatabaseURL must be empty then.
	NoListen bool

	// NoMigrations leaves the schema as it is. By default Run installs it, or
	// brings it up to date, before the first claim.
	NoMigrations bool

	// Recovery is how the worker says that it lives, and gives back the jobs of
	// others that do not. The zero value is on, with the defaults.
	Recovery RecoveryConfig

	// BeforeAdd are asked about each job that the worker's own client adds, as
	// ClientConfig.BeforeAdd says: that is Worker.Client and, in handlers,
	// Job.Client. The jobs of Cron are asked about too, with their payload as a
	// json.RawMessage; one that is failed is reported as CronItemFailed.
	BeforeAdd []func(ctx context.Context, spec *JobSpec) error

	// Logger gets what is worth a line: one at info for each job, failures at
	// error; docs/events.md has all of them. nil means slog.Default(), as it is
	// when NewWorker is called. For no log at all, give
	// slog.New(slog.DiscardHandler). Its handler is called from many goroutines
	// at once, as slog requires of handlers. A panic in it, or a runtime.Goexit, is
	// caught and reported to observers as ObserverPanicked. A handler that is not
	// slog's own is asked every 10 ms at most whether it takes a level.
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
