package gworker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/recovery"
)

// The defaults of RecoveryConfig.
const (
	DefaultHeartbeatInterval   = recovery.DefaultHeartbeatInterval   // 10 s, the default of HeartbeatInterval
	DefaultSweepInterval       = recovery.DefaultSweepInterval       // 30 s, the default of SweepInterval
	DefaultStaleAfter          = recovery.DefaultStaleAfter          // 60 s, the default of StaleAfter
	DefaultResilientMultiplier = recovery.DefaultResilientMultiplier // 3, the default of ResilientMultiplier
	DefaultResilientFlag       = recovery.DefaultResilientFlag       // infrastructure_resilient, the default of ResilientFlags
)

// RecoveryConfig configures a worker's heartbeat, and how it gives back the jobs of
// dead workers. Every zero value is the default.
//
// A worker registers before its first claim and writes a heartbeat on a connection of
// its own. The next sweep declares a worker dead that has been silent for StaleAfter,
// and its jobs run again with the attempt restored. Workers of all runtimes that use
// the schema's recovery tables see each other. Node's workers do not register; their
// jobs are left alone, except that locks older than 4 hours are reset, as by every
// Graphile Worker.
//
// A job that comes back may have been done (see Worker). A job that kills its worker's
// process comes back too: each recovery is counted in its last_error, and after
// MaxAttempts starts it stays failed.
type RecoveryConfig struct {
	// Disabled makes the worker neither register nor sweep. If it dies, its jobs
	// stay locked for 4 hours. Its id then begins with gworker_unregistered_, so
	// that other gworkers do not declare it dead. Rust's sweepers do not know that,
	// and take any job that runs longer than 5 minutes.
	Disabled bool

	// HeartbeatInterval is the time between two heartbeats. 0 means 10 s.
	HeartbeatInterval time.Duration

	// SweepInterval is the time between two sweeps for dead workers, on average.
	// 0 means 30 s.
	SweepInterval time.Duration

	// StaleAfter is the silence after which a worker is declared dead. It must
	// exceed twice HeartbeatInterval, so that one heartbeat may be late. Other workers
	// read this worker's bound and wait at least as long before they declare it dead.
	// For Rust's workers it is at least 5 minutes. 0 means 60 s.
	StaleAfter time.Duration

	// Delay is how long recovered jobs wait before they can run again. 0 means no wait.
	Delay time.Duration

	// ResilientFlags mark jobs that are left with a silent worker for longer, for
	// ResilientMultiplier times StaleAfter, because a second run is worse for them than
	// an outage. nil means infrastructure_resilient, the flag that Rust's workers know;
	// an empty slice means none.
	ResilientFlags []string

	// ResilientMultiplier is at least 1. 0 means 3.
	ResilientMultiplier float64

	// Decide, if not nil, is called for each job of a dead worker before it goes back to
	// the queue, except for cancelled jobs, which stay failed. It must be quick, and must
	// not use the database: a transaction waits for it. If it panics, the job is
	// recovered as by default, and ObserverPanicked reports it.
	Decide func(context.Context, RecoverableJob) RecoveryDecision

	// DecideTasks are the tasks about whose jobs Decide is asked; the others' are
	// recovered as by default. Those jobs are locked and never held, see
	// Config.HoldTime: a held job has nothing to decide about, as it is free when its
	// worker dies. nil means all tasks, so that the worker holds no job.
	DecideTasks []string
}

// RecoverableJob is a job whose worker was declared dead.
type RecoverableJob struct {
	ID          int64         // the job's id
	Task        string        // the identifier of its task
	Queue       string        // its named queue, or ""
	Key         string        // its job key, or ""
	WorkerID    string        // the dead worker, which has locked it
	LockedAt    time.Time     // when that worker locked it
	LockedFor   time.Duration // the age of the lock, by the database's clock
	RunAt       time.Time     // the time before which it did not run
	Attempts    int           // the runs started so far, the interrupted one included
	MaxAttempts int           // the runs after which it stays failed
	LastError   string        // the text of its last failure, or ""
	Flags       []string      // its flags
	// Cancelled says that the job was cancelled: it stays failed, and LastError is
	// the reason.
	Cancelled bool
	// Recoveries is how often in a row the job was recovered before.
	Recoveries int
}

// RecoveryDecision says what becomes of such a job. The zero value recovers it.
type RecoveryDecision struct {
	// Action is what becomes of the job.
	Action RecoveryAction
	// RunAt is when a rescheduled job runs, in the years 1 to 9999; the zero time
	// means at once.
	RunAt time.Time
	// Attempts is how many attempts a rescheduled job has had, 0 to 32767.
	Attempts int
	// Reason becomes the last_error of a job that fails or is rescheduled. ""
	// means that the worker was interrupted. It is cut at 64 KiB; what is not
	// UTF-8, and NUL, becomes U+FFFD. What the database's encoding cannot hold is
	// stored in escapes, such as \u65e5.
	Reason string
}

// RecoveryAction is what becomes of a dead worker's job.
type RecoveryAction uint8

// What can become of a dead worker's job.
const (
	// RecoverJob puts the job back with its attempt restored.
	RecoverJob RecoveryAction = iota
	// RecoverAndReschedule puts it back with the RunAt and Attempts of the decision.
	RecoverAndReschedule
	// RecoverAsFailed counts the attempt as failed: the job is tried again after its
	// backoff, if it has an attempt left.
	RecoverAsFailed
	// RecoverLater leaves the job locked; the next sweep asks again.
	RecoverLater
)

// String returns the action's name, such as "recover".
func (a RecoveryAction) String() string { return recovery.Action(a).String() }

// decide is Decide as the sweep calls it, nil without one.
func (c RecoveryConfig) decide() func(context.Context, recovery.Job) recovery.Decision {
	if c.Decide == nil {
		return nil
	}
	return func(ctx context.Context, j recovery.Job) recovery.Decision {
		return c.Decide(ctx, RecoverableJob(j)).inside()
	}
}

func (d RecoveryDecision) inside() recovery.Decision {
	return recovery.Decision{Action: recovery.Action(d.Action), RunAt: d.RunAt, Attempts: d.Attempts, Reason: d.Reason}
}

// ErrJobLost is the cause (see [context.Cause]) of a handler's context that ends
// because the job is no longer locked by this worker: the worker was silent for
// too long and was declared dead, or its locks were taken. The job may run
// elsewhere by now; nothing that the handler returns is stored.
var ErrJobLost = recovery.ErrJobLost

// validate returns the configuration with its defaults filled in.
func (c RecoveryConfig) validate() (RecoveryConfig, error) {
	for _, d := range []struct {
		name    string
		value   *time.Duration
		initial time.Duration
	}{
		{"HeartbeatInterval", &c.HeartbeatInterval, DefaultHeartbeatInterval},
		{"SweepInterval", &c.SweepInterval, DefaultSweepInterval},
		{"StaleAfter", &c.StaleAfter, DefaultStaleAfter},
		{"Delay", &c.Delay, 0},
	} {
		if *d.value < 0 {
			return c, problem("Config.Recovery."+d.name, "is %s: it cannot be negative", *d.value)
		}
		if *d.value == 0 {
			*d.value = d.initial
		}
	}
	if c.StaleAfter <= 2*c.HeartbeatInterval {
		return c, problem("Config.Recovery.StaleAfter", "is %s: it must exceed twice the heartbeat interval of %s, "+
			"or a healthy worker whose heartbeat is late once would be declared dead", c.StaleAfter, c.HeartbeatInterval)
	}
	if c.ResilientMultiplier == 0 {
		c.ResilientMultiplier = DefaultResilientMultiplier
	}
	if !(c.ResilientMultiplier >= 1) {
		return c, problem("Config.Recovery.ResilientMultiplier", "is %v: it must be at least 1", c.ResilientMultiplier)
	}
	if c.ResilientFlags == nil {
		c.ResilientFlags = []string{DefaultResilientFlag}
	}
	return c, nil
}

// newHeartbeat makes this worker's heartbeat, or returns nil if recovery is disabled.
func (w *Worker) newHeartbeat() *recovery.Heartbeat {
	c := w.config.Recovery
	if c.Disabled {
		return nil
	}
	host, _ := os.Hostname() // "" if it is not known
	h := &recovery.Heartbeat{
		WorkerID: w.id,
		Metadata: recovery.Metadata{
			Runtime: "gworker", Version: version(), Host: host, PID: os.Getpid(), Started: time.Now().UTC(),
			Tasks: w.taskNames(), Concurrency: w.config.Concurrency, StaleAfterSeconds: c.StaleAfter.Seconds(),
			LooksFor: w.config.looksFor(),
		},
		Interval:   c.HeartbeatInterval,
		Connect:    w.heartbeatConnect,
		Statements: w.client.unchecked.Within(heartbeatTimeout(c.HeartbeatInterval)), Events: w.events,
		Trouble: w.trouble,
	}
	if w.fleet != nil {
		h.Alike = w.fleet.Alike
	}
	return h
}

// heartbeatTimeout bounds a heartbeat. It is a small write that waits for no lock: if it has
// not ended when the next one is due, the server most likely does not answer on this
// connection.
func heartbeatTimeout(interval time.Duration) time.Duration { return max(interval, 5*time.Second) }

// version is that of this module in the program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range append(info.Deps, &info.Main) {
			if module.Path == "github.com/gworker/gworker" {
				return module.Version
			}
		}
	}
	return ""
}

// keep registers the worker and starts what recovery does apart from the flow of jobs. stop
// ends that after all outcomes are written, since the worker is alive until then, and
// deregisters it, until lasting ends.
func (w *Worker) keep(ctx, lasting context.Context) (stop func(), err error) {
	keeper, err := w.keepHistory(ctx)
	if err != nil {
		return nil, err
	}
	c, heartbeat := w.config.Recovery, w.newHeartbeat()
	sweeper := &recovery.Sweeper{
		WorkerID: w.id, Pool: w.pool, Statements: w.client.unchecked, Events: w.events,
		Interval: c.SweepInterval, Options: c.sweepOptions(w.id), Now: w.config.Now,
	}
	lockWatch := recovery.NewLockWatch(&recovery.LockWatch{
		WorkerID: w.id, Interval: c.HeartbeatInterval, Queries: w.client.queries, Events: w.events,
		Running: w.lockedJobs, Lose: w.scheduler.Lose, Cancel: w.scheduler.Cancel,
	})
	w.lockWatch = lockWatch
	if heartbeat != nil {
		heartbeat.Paused, heartbeat.Dead = sweeper.Pause, lockWatch.Look
		sweeper.Late = heartbeat.Late
		err := heartbeat.Register(ctx)
		if hasNoRecovery(err) {
			w.events.Emit(event.SchemaWarning{Schema: w.options.Schema.String(), Message: "the schema is from before " +
				"revision 20 and has no tables for recovery: should this worker die, its jobs are locked for 4 hours. " +
				"Migrate it when every worker can work on revision 20"})
			heartbeat, c.Disabled = nil, true
		} else if err != nil {
			return nil, err
		}
	}
	if c.Disabled {
		sweeper.Interval = 0
	} else {
		poller := recovery.IdlePoll{
			WorkerID: w.id, Tasks: w.taskNames(), Interval: w.config.PollInterval,
			Queries: w.client.queries, Heartbeat: heartbeat, Sweeper: sweeper,
		}
		w.scheduler.PollBy(poller.Poll)
	}
	w.heartbeat.Store(heartbeat)
	sweeper.Begin(ctx)
	ctx, cancel := context.WithCancel(lasting)
	var running sync.WaitGroup
	running.Go(func() { sweeper.Run(ctx) })
	running.Go(func() { lockWatch.Run(ctx) })
	if keeper != nil {
		running.Go(func() { keeper.Run(ctx, lasting) })
	}
	if heartbeat != nil {
		running.Go(func() { heartbeat.Run(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
		if heartbeat == nil {
			return
		}
		if err := heartbeat.Deregister(lasting); err != nil {
			w.events.Emit(event.HeartbeatFailed{WorkerID: w.id, Err: err})
		}
	}, nil
}

// hasNoRecovery says that a function or table of revision 20 is missing, as
// Config.NoMigrations allows it.
func hasNoRecovery(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (answer.Code == pgerrcode.UndefinedFunction || answer.Code == pgerrcode.UndefinedTable)
}

func (c RecoveryConfig) sweepOptions(self string) recovery.SweepOptions {
	return recovery.SweepOptions{
		Record: true, StaleAfter: c.StaleAfter, Delay: c.Delay, Self: self, Decide: c.decide(), DecideTasks: c.DecideTasks,
		ResilientFlags: c.ResilientFlags, ResilientMultiplier: c.ResilientMultiplier,
	}
}

// SweepOptions say which workers Client.Sweep declares dead.
type SweepOptions struct {
	// Recovery has the bounds; its intervals, and Disabled, are ignored here.
	Recovery RecoveryConfig

	// NodeLocksOlderThan, if not 0, recovers jobs of Node's workers, which have no
	// heartbeat, whose locks are older. A job that is still running then runs twice, so
	// it must be longer than any job of Node's takes.
	NodeLocksOlderThan time.Duration

	// DryRun changes nothing: the result says what a sweep would do.
	DryRun bool
}

// SweepResult is what a sweep did, or would do.
type SweepResult struct {
	// Busy says that another process was sweeping, and this one did nothing.
	Busy bool
	// Workers are those that were declared dead.
	Workers []SweptWorker
}

// SweptWorker is a worker that was declared dead.
type SweptWorker struct {
	// ID is the id of the worker.
	ID string
	// Registered says that its heartbeat is overdue; otherwise it was not registered
	// and has old locks.
	Registered bool
	// Silence is the time since its heartbeat, or the age of its oldest lock.
	Silence time.Duration
	// Jobs are the jobs that it had locked.
	Jobs []SweptJob
}

// SweptJob is a job of such a worker.
type SweptJob struct {
	// RecoverableJob is the job as it was before.
	RecoverableJob
	// Action is what becomes of it.
	Action RecoveryAction
	// GivenUp says that the job stays failed although Action would try it again: it has
	// been started MaxAttempts times, or it has neither a key nor an attempt left, like a
	// job that was replaced or removed while it ran.
	GivenUp bool
	// Refused, if not nil, is the database's error: a constraint or a trigger refuses to
	// give the job back, so it stays with the dead worker, and the next sweep tries again.
	Refused error
}

func sweptWorker(w recovery.SweptWorker) SweptWorker {
	return SweptWorker{
		ID: w.ID, Registered: w.Registered, Silence: w.Silence,
		Jobs: converted(w.Jobs, func(j recovery.SweptJob) SweptJob {
			return SweptJob{
				RecoverableJob: RecoverableJob(j.Job), Action: RecoveryAction(j.Action), GivenUp: j.GivenUp, Refused: j.Refused,
			}
		}),
	}
}

// Sweep looks for dead workers and puts their jobs back into the queue, as workers do by
// themselves. If another process is sweeping, the result is Busy.
func (c *Client) Sweep(ctx context.Context, options SweepOptions) (SweepResult, error) {
	// The heartbeat interval of other workers is not known here.
	options.Recovery.HeartbeatInterval = 1
	bounds, err := options.Recovery.validate()
	if err != nil {
		return SweepResult{}, fmt.Errorf("sweeping: %w", err)
	}
	if options.NodeLocksOlderThan < 0 {
		return SweepResult{}, fmt.Errorf("sweeping: %w",
			problem("SweepOptions.NodeLocksOlderThan", "is %s: it cannot be negative", options.NodeLocksOlderThan))
	}
	if err := c.reach(ctx); err != nil {
		return SweepResult{}, fmt.Errorf("sweeping: %w", err)
	}
	o := bounds.sweepOptions("")
	o.NodeLocksOlderThan, o.DryRun = options.NodeLocksOlderThan, options.DryRun
	result, err := recovery.Sweep(ctx, c.pool, c.statements, nil, o)
	return sweepResult(result), err
}

func sweepResult(r recovery.SweepResult) SweepResult {
	return SweepResult{Busy: r.Busy, Workers: converted(r.Workers, sweptWorker)}
}
