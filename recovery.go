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
	DefaultHeartbeatInterval   = recovery.DefaultHeartbeatInterval
	DefaultSweepInterval       = recovery.DefaultSweepInterval
	DefaultStaleAfter          = recovery.DefaultStaleAfter
	DefaultResilientMultiplier = recovery.DefaultResilientMultiplier
	DefaultResilientFlag       = recovery.DefaultResilientFlag
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
	// exceed twice HeartbeatInterval: one heartbeat may be late. Others are
	// told this bound, and wait at least as long for this worker. Rust's
	// workers are given 5 minutes. 0 means 60 s.
	StaleAfter time.Duration

	// Delay is how long recovered jobs wait before they can run again. 0 means
	// not at all.
	Delay time.Duration

	// ResilientFlags mark jobs that are left with a silent worker for longer,
	// ResilientMultiplier times StaleAfter: for jobs that take a short outage
	// better than a second run. nil means infrastructure_resilient, the flag
	// that Rust's workers know; an empty slice means none.
	ResilientFlags []string

	// ResilientMultiplier is at least 1. 0 means 3.
	ResilientMultiplier float64

	// Decide, if not nil, is asked about each job of a dead worker before it is
	// given back, but not about cancelled ones, which stay failed. It must be quick, and must not use the database: a
	// transaction waits for it. If it panics, the job is recovered as by
	// default, and ObserverPanicked reports it.
	Decide func(context.Context, RecoverableJob) RecoveryDecision

	// DecideTasks are the tasks about whose jobs Decide is asked; the others' are
	// recovered as by default. Those jobs are locked and never held, see
	// Config.HoldTime: a held job has nothing to decide about, as it is free when its
	// worker dies. nil means all tasks, so that the worker holds no job.
	DecideTasks []string
}

// RecoverableJob is a job whose worker was declared dead.
type RecoverableJob = recovery.Job

// RecoveryDecision says what becomes of such a job. The zero value recovers it.
type RecoveryDecision = recovery.Decision

// RecoveryAction is what becomes of a dead worker's job.
type RecoveryAction = recovery.Action

// What can become of a dead worker's job.
const (
	RecoverJob           = recovery.Recover
	RecoverAndReschedule = recovery.Reschedule
	RecoverAsFailed      = recovery.Fail
	RecoverLater         = recovery.Skip
)

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

// newHeartbeat makes what keeps this worker registered, or nil if nothing shall.
func (w *Worker) newHeartbeat() *recovery.Heartbeat {
	c := w.config.Recovery
	if c.Disabled {
		return nil
	}
	host, _ := os.Hostname() // "" says nothing, which is what is known
	return &recovery.Heartbeat{
		WorkerID: w.id,
		Metadata: recovery.Metadata{
			Runtime: "gworker", Version: version(), Host: host, PID: os.Getpid(), Started: time.Now().UTC(),
			Tasks: w.taskNames(), Concurrency: w.config.Concurrency, StaleAfterSeconds: c.StaleAfter.Seconds(),
		},
		Interval:   c.HeartbeatInterval,
		Connect:    w.heartbeatConnect,
		Statements: w.client.unchecked.Within(heartbeatTimeout(c.HeartbeatInterval)), Events: w.events,
		Trouble: w.trouble,
	}
}

// heartbeatTimeout bounds a heartbeat. It is a small write that waits for no lock of
// anybody's, so that a server which takes longer than until the next is due most likely
// does not answer at all, on this connection.
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

// keep registers the worker and begins what recovery does outside of the flow
// of jobs. stop ends it, when all outcomes are written, and deregisters while lasting goes
// on: while the last jobs end, the worker still lives.
func (w *Worker) keep(ctx, lasting context.Context) (stop func(), err error) {
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
		StaleAfter: c.StaleAfter, Delay: c.Delay, Self: self, Decide: c.Decide, DecideTasks: c.DecideTasks,
		ResilientFlags: c.ResilientFlags, ResilientMultiplier: c.ResilientMultiplier,
	}
}

// SweepOptions say which workers Client.Sweep declares dead.
type SweepOptions struct {
	// Recovery has the bounds; its intervals, and Disabled, do not matter here.
	Recovery RecoveryConfig

	// NodeLocksOlderThan, if not 0, takes jobs from Node's workers, which say
	// nothing, where their locks are older. A job that just takes that long
	// then runs twice, so it must be longer than any of Node's jobs takes.
	NodeLocksOlderThan time.Duration

	// DryRun changes nothing: the result says what a sweep would do.
	DryRun bool
}

// SweepResult is what a sweep did, or would do.
type SweepResult = recovery.SweepResult

// SweptWorker is a worker that was declared dead.
type SweptWorker = recovery.SweptWorker

// SweptJob is a job of such a worker.
type SweptJob = recovery.SweptJob

// Sweep looks for dead workers and gives their jobs back, as workers do by
// themselves. If another process is sweeping, the result says that it is Busy.
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
	return recovery.Sweep(ctx, c.pool, c.statements, nil, o)
}
