package gworker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/connect"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/dial"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/fleet"
	recording "github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/recovery"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/shutdown"
	"github.com/gworker/gworker/internal/singlerun"
	"github.com/gworker/gworker/internal/sqltask"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/wait"
)

// Worker takes jobs from the queue and runs them. Make one with NewWorker and
// use it once, with Run or RunOnce.
//
// The promise is at least once: no job is lost, and its handler is called again if
// the worker cannot know that the job was done, because the process died or lost the
// database after the handler had begun and before the outcome was stored. SQL tasks
// (see LoadTasks) complete in their own transaction, so their effects happen exactly
// once.
type Worker struct {
	id        string
	config    Config
	options   statement.Options
	pool      *pgxpool.Pool
	direct    *pgxpool.Config // of ListenDatabaseURL; nil without one
	pooled    atomic.Bool     // the listener was found behind a pooler
	ownsPool  bool
	dialer    *dial.Dialer // of all its own connections
	closed    sync.Once
	heartbeat atomic.Pointer[recovery.Heartbeat] // once it is started
	listener  atomic.Pointer[listener.Listener]
	unread    atomic.Bool // the ledger: checkLedger has failed since its last success
	client    *Client
	events    *eventstream.Stream
	scheduler *scheduler.Scheduler
	recorder  *recording.Recorder // nil: it records no history
	fleet     *fleet.Fleet        // nil: it shares the looking for jobs with no other
	completer sqltask.Completer
	lockWatch *recovery.LockWatch // once it is started
	cronItems *cron.Set
	ran       atomic.Bool
}

// NewWorker makes a worker. It does not connect yet. A worker that is never run has to be
// closed. Errors name the field of the configuration that cannot be
// used; a *FieldError is among them.
func NewWorker(config Config) (*Worker, error) {
	w, err := newWorker(config)
	if err != nil {
		return nil, fmt.Errorf("making a worker: %w", err)
	}
	return w, nil
}

func newWorker(config Config) (*Worker, error) {
	config, err := config.validate()
	if err != nil {
		return nil, err
	}
	config.Tasks = slices.Clone(config.Tasks)
	config.BeforeRun, config.AfterRun = slices.Clone(config.BeforeRun), slices.Clone(config.AfterRun)
	options, err := statementOptions("Config", config.Schema, config.StatementTimeout, config.NoPreparedStatements)
	if err != nil {
		return nil, err
	}
	cronItems, err := config.Cron.items()
	if err != nil {
		return nil, err
	}
	w := &Worker{id: newWorkerID(config.Recovery.Disabled), config: config, options: options, dialer: &dial.Dialer{}}
	w.cronItems = cron.NewSet(cronItems)
	if w.direct, err = parseDirect(config.ListenDatabaseURL); err != nil {
		return nil, err
	}
	w.pool, w.ownsPool, err = openPool(
		"Config", config.Pool, config.DatabaseURL, config.MaxPoolSize, options, w.dialer, w.suspect)
	if err != nil {
		return nil, err
	}
	w.client = newClient(w.pool, options, w.trouble)
	if config.Now != nil {
		config.Now = contain.Clock(config.Now, func(err error) {
			value, stack := contain.Cause(err)
			w.events.Emit(event.ObserverPanicked{Value: value, Stack: stack})
		})
		w.config.Now = config.Now
	}
	w.client.now = config.Now
	w.client.before = slices.Clone(config.BeforeAdd)
	w.client.ownTasks = w.taskNames()
	var observers []eventstream.Observer
	for _, o := range config.Observers {
		observers = append(observers, eventstream.Observer(o))
	}
	w.events = newStream(config.Logger, observers)
	w.recorder = w.newRecorder()
	if config.looksFor() != "" {
		w.fleet = &fleet.Fleet{Self: w.id}
	}
	w.scheduler = scheduler.New(config.claims(scheduler.Config{
		Database: w.client.unchecked.Bind(w.pool, w.trouble), WorkerID: w.id, Handlers: w.handlers(),
		Concurrency: config.Concurrency, PollInterval: config.PollInterval,
		StatementTimeout: config.StatementTimeout, AbortTimeout: config.abortTimeout(), GiveUpAfter: config.giveUpAfter(),
		ReturnDelay: config.ShutdownReturnDelay, Policies: config.policies(), Events: w.events, Fleet: w.fleet,
		History: w.recorder,
		Hold: scheduler.Hold{
			Connect:    w.holdConnect,
			Statements: w.client.unchecked, Trouble: w.trouble,
		},
	}))
	w.client.holder = w.scheduler
	w.events.Emit(event.WorkerCreated{
		WorkerID: w.id, Concurrency: config.Concurrency, Tasks: w.taskNames(), Schema: options.Schema.String(),
	})
	return w, nil
}

// newStream makes the worker's stream. A log that is discarded costs nothing.
func newStream(logger *slog.Logger, observers []eventstream.Observer) *eventstream.Stream {
	if logger.Handler() == slog.DiscardHandler {
		return eventstream.New(observers...)
	}
	log := newEventLog(logger)
	return eventstream.NewWithLog(log.observe, eventstream.LogLevels{
		Debug: func() bool { return log.enabled(slog.LevelDebug) },
		Info:  func() bool { return log.enabled(slog.LevelInfo) },
	}, observers...)
}

// newWorkerID follows the pattern of the other runtimes: a prefix for the runtime, and 9
// random bytes.
func newWorkerID(unregistered bool) string {
	var random [9]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	prefix := recovery.OwnPrefix
	if unregistered {
		prefix = recovery.UnregisteredPrefix
	}
	return prefix + hex.EncodeToString(random[:])
}

func (w *Worker) handlers() map[string]scheduler.Handler {
	handlers := make(map[string]scheduler.Handler, len(w.config.Tasks))
	log := newEventLog(w.config.Logger)
	for _, task := range w.config.Tasks {
		env := &environment{
			client: w.client, events: w.events, logger: w.config.Logger, log: log, worker: w.id, locked: w.locked, completer: &w.completer,
			maxAttempts: task.options.MaxAttempts,
		}
		handlers[task.identifier] = w.config.handler(env, task)
	}
	return handlers
}

// ID returns the worker's id, which is in locked_by of the jobs that it has locked.
func (w *Worker) ID() string { return w.id }

// Client returns a client on the worker's database and schema. It can be used
// while the worker runs; with Config.Pool, before and afterwards too.
//
// This client, and those of its WithTx and WithSQLTx, show jobs that the worker holds without
// a lock (see Config.HoldTime) as running, with the locks that would be written. If they
// change such jobs, or add jobs with their keys, the worker writes the locks at once. Other
// clients see such jobs as ready, and their changes wait at most for the hold time.
func (w *Worker) Client() *Client { return w.client }

// Run runs jobs until ctx ends. It connects, migrates the schema, and then claims jobs as
// slots become free; jobs of Config.Cron are added when they are due. If the database goes
// away, Run waits for it; only a breaking migration (ErrBreakingMigration) ends Run before
// ctx does.
//
// When ctx ends, the worker claims no more, lets running jobs finish, ends their contexts
// after GracefulShutdownAbortTimeout, stores all outcomes and returns nil. That takes at most
// GracefulShutdownAbortTimeout and one StatementTimeout, even if the database does not
// answer, and at most 5 s if no job runs. A handler that ignores its context keeps Run
// waiting: Config.ShutdownTimeout bounds that, and Abandon ends it.
func (w *Worker) Run(ctx context.Context) error {
	return w.run(ctx, w.runAndSchedule)
}

// RunOnce is Run, but returns when no job is runnable and none is running. It does not wait
// for jobs that have failed and will be retried later. A job's failure is not an error of
// RunOnce. Cron is off, as on Node.
func (w *Worker) RunOnce(ctx context.Context) error {
	if run := singlerun.Take(ctx); run != nil {
		w.runSingle(ctx, run)
		return nil
	}
	return w.run(ctx, w.runOnce)
}

// runSingle lets a slot run the job of a test, without a database: all that lies between
// a claim and the writing of the outcome is as in production.
func (w *Worker) runSingle(ctx context.Context, run *singlerun.Run) {
	defer w.Close()
	run.Row.LockedBy = w.id
	run.Job = &job.Claimed{Row: run.Row, Lock: job.Lock{By: w.id, At: run.Row.LockedAt, Attempt: run.Row.Attempts}}
	run.Outcome, run.Duration = w.scheduler.RunSingle(ctx, run.Job)
}

// Abandon makes Run return soon after its context has ended: handlers are no
// longer waited for, and their jobs are returned to the queue with the attempt
// restored. Processes of executables are killed, with all processes that they have started.
// A handler that goes on may overlap with the job's next run, so use this only in a process
// that is about to exit. Run returns within 5 s.
func (w *Worker) Abandon() { w.scheduler.Force() }

// Close closes the worker's own pool and ends its subscriptions. Run and RunOnce do so when
// they return, so it is for a worker that is never run. Do not call it while the worker runs.
// It takes at most 5 s.
func (w *Worker) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	w.close(ctx)
}

// close is Close, until ctx ends.
func (w *Worker) close(ctx context.Context) {
	w.client.announcer.Close(ctx)
	w.closed.Do(func() {
		if w.ownsPool {
			connect.ClosePool(ctx, w.pool, w.dialer)
		}
		w.dialer.Close()
	})
	w.events.Close()
}

func (w *Worker) run(ctx context.Context, work func(context.Context) error) error {
	if w.ran.Swap(true) {
		return ErrAlreadyRun
	}
	limit := w.config.ShutdownTimeout
	if limit == 0 {
		return w.runUntil(ctx, shutdown.New(ctx, 0), work)
	}
	// Handlers, hooks and observers are called in many places, and one that does not
	// return keeps whatever waits for it.
	deadline, result := shutdown.New(ctx, limit-lastMoment(limit)), make(chan error, 1)
	go func() { result <- w.runUntil(ctx, deadline, work) }()
	select {
	case err := <-result:
		return err
	case <-deadline.Context().Done():
	}
	timer := time.NewTimer(lastMoment(limit))
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return fmt.Errorf("%w of %s", ErrShutdownTimeout, limit)
	}
}

// lastMoment is how much of a ShutdownTimeout is left when everything is aborted.
func lastMoment(limit time.Duration) time.Duration { return min(limit/10, time.Second) }

// runUntil is run, with a deadline for the end, which it closes.
func (w *Worker) runUntil(ctx context.Context, deadline *shutdown.Deadline, work func(context.Context) error) (err error) {
	defer deadline.Close()
	// If the server does not answer, this ends what no context can end.
	defer context.AfterFunc(deadline.Context(), w.dialer.Close)()
	defer func() {
		deadline.Sooner(shutdown.Quiet)
		w.close(deadline.Context())
	}()
	ledger, stopKeeping, err := w.start(ctx, deadline.Context())
	if err != nil {
		return w.orStopped(ctx, err)
	}
	w.scheduler.EndBy(deadline)
	w.events.Emit(event.WorkerStarted{
		WorkerID: w.id, Concurrency: w.config.Concurrency, Tasks: w.taskNames(), Schema: w.options.Schema.String(),
	})
	defer func() { w.events.Emit(event.WorkerStopped{WorkerID: w.id, Err: err}) }()

	ctx, stop := context.WithCancelCause(ctx)
	listening := w.listen(ctx, ledger, stop)
	err = work(ctx)
	deadline.Sooner(shutdown.Quiet)
	stop(nil)
	<-listening
	stopKeeping()
	if cause := context.Cause(ctx); err == nil && contain.Is(cause, ErrBreakingMigration) {
		return cause
	}
	return err
}

// start does everything before the first claim. It waits for a database that goes away
// meanwhile as long as for one that is unreachable at first.
//
// lasting ends after the worker.
func (w *Worker) start(ctx, lasting context.Context) (ledger migrate.Ledger, stopKeeping func(), err error) {
	waits, since := retry.StartBackoff(), time.Time{}
	for {
		if err := connect.Wait(ctx, w.pool, w.config.ConnectTimeout, w.events); err != nil {
			return ledger, nil, connect.Advised(err)
		}
		if err = w.checkDirect(ctx); err == nil {
			ledger, err = w.prepareSchema(ctx)
		}
		if err == nil {
			stopKeeping, err = w.keep(ctx, lasting)
		}
		if since.IsZero() {
			since = time.Now()
		}
		if err == nil || !connect.MayPass(err) || time.Since(since) > w.config.ConnectTimeout {
			return ledger, stopKeeping, connect.AdvisedToWrite(connect.Advised(err))
		}
		if statement.IsReadOnly(err) {
			w.leaveServer()
		}
		retryIn := waits.NextBackOff()
		w.events.Emit(event.DatabaseUnreachable{Err: connect.AdvisedToWrite(err), RetryIn: retryIn, ReadOnly: statement.IsReadOnly(err)})
		if wait.Sleep(ctx, retryIn) != nil {
			return ledger, nil, err
		}
	}
}

// orStopped is err, unless it only says that ctx has ended.
func (w *Worker) orStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *Worker) taskNames() []string {
	names := make([]string, len(w.config.Tasks))
	for i, task := range w.config.Tasks {
		names[i] = task.identifier
	}
	slices.Sort(names)
	return names
}
