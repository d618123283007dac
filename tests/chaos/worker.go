//go:build unix

package main

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
)

// processEnv set, this program is a worker.
const processEnv = "GWORKER_CHAOS_PROCESS"

//go:embed tasks/*.sql
var taskFolder embed.FS

// sqlTasks are those of the files in tasks. The last one runs in the sessions that the
// others leave behind.
var sqlTasks = []string{"deallocate", "discard", "plain_sql"}

// An order is the line of JSON that a worker process gets on its stdin.
type order struct {
	ConnectionString string   `json:"connectionString"` // through the proxy
	Oracle           string   `json:"oracle"`           // not
	Package          string   `json:"package,omitempty"`
	Worker           string   `json:"worker"`
	Tasks            []string `json:"tasks"`
	Concurrency      int      `json:"concurrency"`
	PollInterval     int      `json:"pollInterval"` // ms
	LocalQueue       int      `json:"localQueue"`   // its size; 0: none
	HoldTime         *int64   `json:"holdTime"`     // ms; null: the default
}

// A message is a line that a worker process writes.
type message struct {
	Event    string `json:"event"`
	WorkerID string `json:"workerId,omitempty"`
}

// What jobs carry: how long they take, and how many of their runs fail.
type payload struct {
	N     int64 `json:"n"`
	Ms    int   `json:"ms"`
	Fails int   `json:"fails,omitempty"`

	Poison string `json:"poison,omitempty"` // how the handler ends
	Bomb   bomb   `json:"bomb,omitempty"`
	Refuse string `json:"refuse,omitempty"` // what audit.sql has against the outcome
	Until  int    `json:"until,omitempty"`  // and in how many attempts
}

func workerProcess() (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := runWorker(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

func runWorker(ctx context.Context) error {
	var o order
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	oracle, err := pgxpool.New(ctx, o.Oracle)
	if err != nil {
		return err
	}
	defer oracle.Close()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	records := newRecorder(oracle)
	defer records.close()
	h := &handler{records: records, worker: o.Worker}
	config := gworker.Config{
		DatabaseURL: o.ConnectionString, Concurrency: o.Concurrency, Logger: logger,
		PollInterval:   time.Duration(o.PollInterval) * time.Millisecond,
		ConnectTimeout: 5 * time.Minute, // it may be started while there is no database
		// Short, so that a fault holds several of them.
		StatementTimeout: statementTimeout, GracefulShutdownAbortTimeout: abortTimeout,
		Observers: []func(event.Event){tell},
	}
	if o.LocalQueue > 0 {
		config.LocalQueue = gworker.LocalQueueConfig{Size: o.LocalQueue, TTL: localQueueTTL}
	}
	if o.HoldTime != nil {
		config.HoldTime = new(time.Duration(*o.HoldTime) * time.Millisecond)
	}
	for _, task := range o.Tasks {
		config.Tasks = append(config.Tasks, gworker.NewTask(task, h.run))
	}
	folder, err := fs.Sub(taskFolder, "tasks")
	if err != nil {
		return err
	}
	files, err := gworker.LoadTasksFS(folder)
	if err != nil {
		return err
	}
	config.Tasks = append(config.Tasks, files.Tasks...)
	recoverSoon(&config)
	worker, err := gworker.NewWorker(config)
	if err != nil {
		return err
	}
	h.workerID = worker.ID()
	say(message{Event: "worker", WorkerID: worker.ID()})
	return worker.Run(ctx)
}

// tell passes on the events that the figures count. Those that every job has would be too
// many.
func tell(e event.Event) {
	switch e.(type) {
	case event.JobsClaimed, event.JobStarted, event.JobEnded, event.JobCompleted, event.JobFailed,
		event.JobPermanentlyFailed, event.LocalQueueFetched, event.LocalQueueModeChanged,
		event.ClaimStarted, event.ClaimEmpty, event.NotificationReceived:
	default:
		say(message{Event: fmt.Sprintf("%T", e)[len("event."):]})
	}
}

var stdout sync.Mutex

func say(m message) {
	line, _ := json.Marshal(m) // strings
	stdout.Lock()
	defer stdout.Unlock()
	_, _ = os.Stdout.Write(append(line, '\n'))
}

// handler records each run on the oracle.
type handler struct {
	records  *recorder
	worker   string
	workerID string
}

func (h *handler) run(ctx context.Context, job *gworker.Job[payload]) error {
	id, err := h.records.begin(job.Payload.N, job.ID, job.Queue, job.Attempts, h.worker, h.workerID, job.LockedAt)
	if err != nil {
		h.give(err)
	}
	outcome, result := work(ctx, job)
	if err := h.records.end(id, outcome); err != nil {
		h.give(err)
	}
	if p, ok := poisons[job.Payload.Poison]; ok && outcome == "failed" {
		return p.end()
	}
	return result
}

// give ends the process: without its records the test is worthless.
func (h *handler) give(err error) {
	fmt.Fprintln(os.Stderr, "the oracle does not answer:", err)
	os.Exit(3)
}

func work(ctx context.Context, job *gworker.Job[payload]) (outcome string, err error) {
	timer := time.NewTimer(time.Duration(job.Payload.Ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		if cause := context.Cause(ctx); lostJob(cause) {
			return "lost", cause
		}
		return "cut", context.Cause(ctx)
	}
	if job.Attempts <= job.Payload.Fails || job.Payload.Poison != "" {
		return "failed", errors.New(failure)
	}
	if p := job.Payload; p.Refuse != "" && !refusals[p.Refuse].fails && job.Attempts <= p.Until {
		return "refused", nil
	}
	return "ok", nil
}

// failure is what failing jobs fail with.
const failure = "as the payload says"
