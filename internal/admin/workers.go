package admin

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
	"github.com/gworker/gworker/internal/recovery"
)

// Worker is a worker that is registered, or that has locks.
type Worker struct {
	// ID is what stands in the locked_by of its jobs and queues.
	ID string `json:"id"`
	// Runtime is the worker's runtime, by the form of its id: "gworker", "node" or
	// "rust"; "" if none writes such ids. In Node's newer versions, an id is that of a
	// pool of workers.
	Runtime string `json:"runtime"`
	// Registered says that the worker has registered, and writes heartbeats. Node's
	// workers never do, Rust's only if they are configured to.
	Registered bool `json:"registered"`
	// StartedAt and LastHeartbeatAt are the times of its registration and of its last
	// heartbeat, and Silence is the age of that heartbeat by the database's clock.
	StartedAt       time.Time     `json:"started_at,omitzero"`
	LastHeartbeatAt time.Time     `json:"last_heartbeat_at,omitzero"`
	Silence         time.Duration `json:"silence_ns"`
	// Metadata is what the worker stores about itself, a JSON object; the fields below
	// are what could be read of it.
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	Version     string          `json:"version,omitempty"`
	Host        string          `json:"host,omitempty"`
	PID         int             `json:"pid"`
	Tasks       []string        `json:"tasks"`
	Concurrency int             `json:"concurrency"`
	// Jobs and Queues are how many it has locked, and OldestLock is the age of its
	// oldest lock.
	Jobs       int64         `json:"jobs"`
	Queues     int64         `json:"queues"`
	OldestLock time.Duration `json:"oldest_lock_ns"`
}

// ListWorkers returns all workers that are registered or have locks, by id.
func ListWorkers(ctx context.Context, q *dbgen.Queries, held Held) ([]Worker, error) {
	holders, err := q.AdminLockHolders(ctx, dbgen.AdminLockHoldersParams{
		Holder: held.worker, Held: array(held.ids), HeldAts: array(held.jobAts),
		HeldQueues: array(held.names), HeldQueueAts: array(held.queueAts),
	})
	if err != nil {
		return nil, err
	}
	registered, err := registeredWorkers(ctx, q)
	if err != nil {
		return nil, err
	}
	workers := make([]Worker, 0, len(registered)+len(holders))
	for _, r := range registered {
		w := Worker{
			ID: r.ID, Runtime: recovery.RuntimeOf(r.ID), Registered: true, StartedAt: r.StartedAt.Time,
			LastHeartbeatAt: r.LastHeartbeatAt.Time, Silence: elapsed.Seconds(r.SilentFor), Metadata: json.RawMessage(r.Metadata),
		}
		w.understand()
		workers = append(workers, w)
	}
	for _, h := range holders {
		i := slices.IndexFunc(workers, func(w Worker) bool { return w.ID == h.Worker })
		if i < 0 {
			i = len(workers)
			workers = append(workers, Worker{ID: h.Worker, Runtime: recovery.RuntimeOf(h.Worker)})
		}
		workers[i].Jobs, workers[i].Queues, workers[i].OldestLock = h.Jobs, h.Queues, elapsed.Seconds(h.Oldest)
	}
	slices.SortFunc(workers, func(a, b Worker) int { return strings.Compare(a.ID, b.ID) })
	return workers, nil
}

// understand reads the metadata. Other runtimes may use the same names for something else,
// so each field is read separately.
func (w *Worker) understand() {
	var members map[string]json.RawMessage
	if json.Unmarshal(w.Metadata, &members) != nil {
		return
	}
	for name, into := range map[string]any{
		"version": &w.Version, "host": &w.Host, "pid": &w.PID, "tasks": &w.Tasks, "concurrency": &w.Concurrency,
	} {
		// A value of another type leaves the field empty.
		_ = json.Unmarshal(members[name], into)
	}
	if w.Host == "" {
		_ = json.Unmarshal(members["hostname"], &w.Host)
	}
}

// registeredWorkers are none where the schema has no table for them.
func registeredWorkers(ctx context.Context, q *dbgen.Queries) ([]dbgen.AdminRegisteredWorkersRow, error) {
	rows, err := q.AdminRegisteredWorkers(ctx)
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == pgerrcode.UndefinedTable {
		return nil, nil
	}
	return rows, err
}

// Locks are what one worker has locked.
type Locks struct {
	WorkerID string      `json:"worker_id,omitempty"`
	Jobs     []LockedJob `json:"jobs"`
	Queues   []string    `json:"queues"`
}

// LockedJob is a job that a worker has locked.
type LockedJob struct {
	ID          int64         `json:"id"`
	Task        string        `json:"task_identifier"`
	Attempts    int           `json:"attempts"`
	MaxAttempts int           `json:"max_attempts"`
	LockedFor   time.Duration `json:"locked_for_ns"`
}

// LockedBy returns what each of the given workers has locked.
func LockedBy(ctx context.Context, q *dbgen.Queries, workers []string) ([]Locks, error) {
	var locked []Locks
	at := make(map[string]int, len(workers))
	for _, id := range workers {
		if _, twice := at[id]; !twice {
			at[id] = len(locked)
			locked = append(locked, Locks{WorkerID: id})
		}
	}
	if len(locked) == 0 {
		return nil, nil
	}
	jobs, err := q.AdminLockedJobs(ctx, workers)
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		l := &locked[at[j.Worker]]
		l.Jobs = append(l.Jobs, LockedJob{
			ID: j.ID, Task: j.Task, Attempts: int(j.Attempts), MaxAttempts: int(j.MaxAttempts), LockedFor: elapsed.Seconds(j.LockedFor),
		})
	}
	queues, err := q.AdminLockedQueues(ctx, workers)
	if err != nil {
		return nil, err
	}
	for _, row := range queues {
		l := &locked[at[row.Worker]]
		l.Queues = append(l.Queues, row.QueueName)
	}
	return locked, nil
}

// ForceUnlock removes the locks of workers, and returns what they were.
func ForceUnlock(ctx context.Context, q *dbgen.Queries, workers []string) ([]Locks, error) {
	locked, err := LockedBy(ctx, q, workers)
	if err != nil {
		return nil, err
	}
	locks := 0
	for _, l := range locked {
		locks += len(l.Jobs) + len(l.Queues)
	}
	if locks == 0 {
		return locked, nil
	}
	return locked, q.AdminForceUnlock(ctx, dbgen.AdminForceUnlockParams{Workers: workers, Jobs: int32(locks)})
}
