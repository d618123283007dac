package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// gworkerEnv set, this test program is a gworker worker: a fleet needs
// processes, and the test program has the library in it already.
const gworkerEnv = "GWORKER_INTEROP_PROCESS"

// startWorker starts a worker of the side. It works until it is stopped or,
// with once, until nothing is runnable.
func (s side) startWorker(t *testing.T, o order, to *journal) *process {
	t.Helper()
	if o.Worker == "" {
		o.Worker = s.String()
	}
	if s.isRust() {
		return start(t, s.String(), rust.Command(t.Context(), t, s.crate, "worker"), o, to)
	}
	if s.isNode() {
		o.Package = s.version.Package
		return start(t, s.String(), node.Require(t).Command(t.Context(), t, "worker.mjs"), o, to)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("finding this test program: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), gworkerEnv+"=1")
	return start(t, s.String(), cmd, o, to)
}

// runOnce lets a worker of the side run whatever is runnable.
func (s side) runOnce(t *testing.T, url string, tasks ...string) {
	t.Helper()
	o := order{ConnectionString: url, Tasks: tasks, Concurrency: 4, Once: true}
	s.startWorker(t, o, newJournal()).wait(t)
}

// seenJob is a job as its handler saw it, told alike by every runtime.
type seenJob struct {
	ID          int64           `json:"id"`
	Task        string          `json:"task"`
	Queue       string          `json:"queue"`
	Payload     json.RawMessage `json:"payload"`
	Priority    int             `json:"priority"`
	RunAt       time.Time       `json:"runAt"`
	Attempts    int             `json:"attempts"`
	MaxAttempts int             `json:"maxAttempts"`
	Key         string          `json:"key"`
	Flags       []string        `json:"flags"`
}

// gworkerProcess is the worker.mjs of this side.
func gworkerProcess() (status int) {
	if err := runGworker(); err != nil {
		fmt.Fprintln(os.Stderr, "gworker:", err)
		return 1
	}
	return 0
}

func runGworker() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { // ends with stdin, at the latest with the process
		_, _ = in.ReadByte()
		stop()
	}()

	config, err := pgxpool.ParseConfig(o.ConnectionString)
	if err != nil {
		return err
	}
	config.MaxConns = int32(o.Concurrency)
	record, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer record.Close()

	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var tasks []gworker.Task
	handler := recorder{pool: record, worker: o.Worker}
	for _, name := range o.Tasks {
		tasks = append(tasks, gworker.NewRawTask(name, handler.run))
	}
	for _, name := range o.BatchTasks {
		tasks = append(tasks, gworker.NewBatchTask(name, handler.runBatch))
	}
	workerConfig := gworker.Config{
		DatabaseURL: o.ConnectionString, Schema: o.Schema, Tasks: tasks, Concurrency: o.Concurrency, Logger: logger,
		AcceptedFlags:  o.AcceptedFlags,
		ForbiddenFlags: o.ForbiddenFlags, LocalQueue: gworker.LocalQueueConfig{Size: o.LocalQueue},
		Cron: gworker.CronConfig{Crontab: o.Crontab}, Recovery: o.Recovery.gworker(),
	}
	workerConfig.Recovery.Disabled = o.RecoveryOff
	if o.HoldMs != nil {
		workerConfig.HoldTime = new(milliseconds(*o.HoldMs))
	}
	worker, err := gworker.NewWorker(workerConfig)
	if err != nil {
		return err
	}
	if o.Once {
		return worker.RunOnce(ctx)
	}
	return worker.Run(ctx)
}

func (r *orderRecovery) gworker() (config gworker.RecoveryConfig) {
	if r != nil {
		config.HeartbeatInterval, config.SweepInterval = milliseconds(r.HeartbeatMs), milliseconds(r.SweepMs)
		config.StaleAfter, config.Delay = milliseconds(r.ThresholdMs), milliseconds(r.DelayMs)
	}
	return config
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// recorder is the task that worker.mjs has too.
type recorder struct {
	pool   *pgxpool.Pool
	worker string
}

func (r recorder) run(ctx context.Context, job *gworker.RawJob) error {
	if err := r.record(ctx, &job.JobRow); err != nil {
		return err
	}
	return failureOf(job.Payload)
}

// runBatch is the batch task that worker.mjs has too.
func (r recorder) runBatch(ctx context.Context, job *gworker.BatchJob[json.RawMessage]) ([]error, error) {
	if err := r.record(ctx, &job.JobRow); err != nil {
		return nil, err
	}
	results := []error{}
	for _, element := range job.Payload {
		var wish struct{ NoResult bool }
		if json.Unmarshal(element, &wish) != nil || !wish.NoResult {
			results = append(results, failureOf(element))
		}
	}
	return results, nil
}

func (r recorder) record(ctx context.Context, job *gworker.JobRow) error {
	seen := seenJob{
		ID: job.ID, Task: job.Task, Queue: job.Queue, Payload: job.Payload, Priority: job.Priority,
		RunAt: job.RunAt.UTC(), Attempts: job.Attempts, MaxAttempts: job.MaxAttempts, Key: job.Key,
		Flags: append([]string{}, job.Flags...),
	}
	slices.Sort(seen.Flags)
	var run int64
	err := r.pool.QueryRow(ctx, "select interop.start($1, $2)", r.worker, seen).Scan(&run)
	if err != nil {
		return fmt.Errorf("recording the start: %w", err)
	}
	say(report{Event: "started", Job: job.ID})
	if _, err := r.pool.Exec(ctx, "select interop.finish($1)", run); err != nil {
		return fmt.Errorf("recording the end: %w", err)
	}
	say(report{Event: "finished", Job: job.ID})
	return nil
}

// failureOf is the failure that a payload, or an element of a batch, asks for.
func failureOf(payload json.RawMessage) error {
	var wish struct{ Fail string }
	if json.Unmarshal(payload, &wish) == nil && wish.Fail != "" {
		return errors.New(wish.Fail)
	}
	return nil
}

var stdout sync.Mutex

func say(e report) {
	line, _ := json.Marshal(e) // numbers and a word
	stdout.Lock()
	defer stdout.Unlock()
	_, _ = os.Stdout.Write(append(line, '\n'))
}
