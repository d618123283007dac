package gworker

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/doctor"
)

// JobCounts are numbers of jobs by their states.
type JobCounts struct {
	Scheduled int64 `json:"scheduled"` // in StateScheduled
	Ready     int64 `json:"ready"`     // in StateReady
	Blocked   int64 `json:"blocked"`   // in StateBlocked
	Running   int64 `json:"running"`   // in StateRunning
	Retrying  int64 `json:"retrying"`  // in StateRetrying
	Failed    int64 `json:"failed"`    // in StateFailed
}

// Total is the number of all jobs.
func (c JobCounts) Total() int64 { return admin.Counts(c).Total() }

// Stats are the numbers of all jobs: by state, and by task and queue.
type Stats struct {
	// JobCounts are the numbers of all jobs.
	JobCounts
	// LongestWait is how long the oldest ready job has waited.
	LongestWait time.Duration `json:"longest_wait_ns"`
	// Tasks are the tasks that have jobs, by identifier.
	Tasks []TaskStats `json:"tasks"`
	// Queues are the named queues with the most jobs, those first.
	Queues []QueueStats `json:"queues"`
}

// TaskStats are the numbers of one task's jobs.
type TaskStats struct {
	// JobCounts are the numbers of the task's jobs.
	JobCounts
	// Task is the task's identifier.
	Task string `json:"task_identifier"`
	// LongestWait is how long the task's oldest ready job has waited.
	LongestWait time.Duration `json:"longest_wait_ns"`
}

// QueueStats are the numbers of one named queue's jobs.
type QueueStats struct {
	// JobCounts are the numbers of the queue's jobs.
	JobCounts
	// Queue is the queue's name.
	Queue string `json:"queue_name"`
	// LongestWait is how long the queue's oldest ready job has waited.
	LongestWait time.Duration `json:"longest_wait_ns"`
}

// StatsOptions say how much to count. The zero value is the default.
type StatsOptions struct {
	// MaxQueues is how many named queues to list, those with the most jobs: 1 to
	// 10,000. 0 means 20, and -1 none, which saves a scan of the jobs.
	MaxQueues int
}

// Stats counts the jobs. It scans all of them, which takes about a second for a million.
func (c *Client) Stats(ctx context.Context, options StatsOptions) (Stats, error) {
	const field, defaultQueues = "StatsOptions.MaxQueues", 20
	queues := options.MaxQueues
	switch {
	case queues < -1 || queues > MaxPageSize:
		return Stats{}, fmt.Errorf("counting jobs: %w",
			problem(field, "is %d: it can be 1 to %d, 0 for %d, or -1 for none", queues, MaxPageSize, defaultQueues))
	case queues == 0:
		queues = defaultQueues
	}
	stats, err := admin.CountJobs(ctx, c.reads.list(false), max(queues, 0), c.held())
	if err != nil {
		return Stats{}, fmt.Errorf("counting jobs: %w", err)
	}
	return publicStats(stats), nil
}

func publicStats(stats admin.Stats) Stats {
	return Stats{
		JobCounts: JobCounts(stats.Counts), LongestWait: stats.LongestWait,
		Tasks: converted(stats.Tasks, func(t admin.TaskStats) TaskStats {
			return TaskStats{JobCounts: JobCounts(t.Counts), Task: t.Task, LongestWait: t.LongestWait}
		}),
		Queues: converted(stats.Queues, func(q admin.QueueStats) QueueStats {
			return QueueStats{JobCounts: JobCounts(q.Counts), Queue: q.Queue, LongestWait: q.LongestWait}
		}),
	}
}

// QueueInfo is a named queue: who has locked it, and its jobs by state.
type QueueInfo struct {
	// JobCounts are the numbers of its jobs.
	JobCounts
	// Name is the queue's name.
	Name string `json:"queue_name"`
	// LockedBy is the worker that has locked the queue, or "".
	LockedBy string `json:"locked_by,omitempty"`
	// LockedAt is when that worker locked it; zero if none has.
	LockedAt time.Time `json:"locked_at,omitzero"`
	// LockedFor is the age of the lock, by the database's clock.
	LockedFor time.Duration `json:"locked_for_ns"`
	// LongestWait is how long its oldest ready job has waited.
	LongestWait time.Duration `json:"longest_wait_ns"`
}

// QueuePage is a page of Client.Queues.
type QueuePage struct {
	// Queues are the queues of the page, by name.
	Queues []QueueInfo `json:"queues"`
	// NextCursor asks for the next page; it is "" on the last one.
	NextCursor string `json:"next_cursor,omitempty"`
}

// QueueFilter says which queues Client.Queues returns. The zero value is the
// first 100 queues by name.
type QueueFilter struct {
	// Names are the queues to list. Empty means all.
	Names []string
	// LockedOnly leaves out queues that are not locked.
	LockedOnly bool
	// Limit is how many queues a page has: 1 to 10,000. 0 means 100.
	Limit int
	// Cursor is the NextCursor of the previous page. "" means the first page.
	Cursor string
}

// Queues returns one page of the named queues, by name. Queues whose jobs are gone
// are listed until a cleanup deletes them.
func (c *Client) Queues(ctx context.Context, filter QueueFilter) (QueuePage, error) {
	page, err := c.queuePage(ctx, filter)
	if err != nil {
		return QueuePage{}, fmt.Errorf("listing queues: %w", err)
	}
	return queuePage(page), nil
}

func queuePage(page admin.QueuePage) QueuePage {
	return QueuePage{NextCursor: page.NextCursor, Queues: converted(page.Queues, func(q admin.Queue) QueueInfo {
		return QueueInfo{
			JobCounts: JobCounts(q.Counts), Name: q.Name,
			LockedBy: q.LockedBy, LockedAt: q.LockedAt, LockedFor: q.LockedFor, LongestWait: q.LongestWait,
		}
	})}
}

func (c *Client) queuePage(ctx context.Context, filter QueueFilter) (admin.QueuePage, error) {
	f := admin.QueueFilter{Names: filter.Names, LockedOnly: filter.LockedOnly}
	for i, name := range f.Names {
		if err := checkText(fmt.Sprintf("QueueFilter.Names[%d]", i), name, math.MaxInt); err != nil {
			return admin.QueuePage{}, err
		}
	}
	var err error
	if f.Limit, err = pageSize("QueueFilter.Limit", filter.Limit); err != nil {
		return admin.QueuePage{}, err
	}
	if filter.Cursor != "" {
		if f.After, err = admin.ParseQueueCursor(filter.Cursor); err != nil {
			return admin.QueuePage{}, problem("QueueFilter.Cursor", "%v", err)
		}
	}
	f.Held = c.held()
	return admin.ListQueues(ctx, c.reads.list(false), f)
}

// WorkerInfo is a worker of any runtime that is registered or has locks.
type WorkerInfo struct {
	// ID is what stands in the locked_by of its jobs and queues.
	ID string `json:"id"`
	// Runtime is the worker's runtime, by the form of its id: "gworker", "node" or
	// "rust"; "" if none writes such ids. In Node's newer versions, an id is that of a
	// pool of workers.
	Runtime string `json:"runtime"`
	// Registered says that the worker has registered, and writes heartbeats. Node's
	// workers never do, Rust's only if they are configured to.
	Registered bool `json:"registered"`
	// StartedAt is when it registered; zero if it has not.
	StartedAt time.Time `json:"started_at,omitzero"`
	// LastHeartbeatAt is when it last wrote a heartbeat; zero if it never has.
	LastHeartbeatAt time.Time `json:"last_heartbeat_at,omitzero"`
	// Silence is the time since its last heartbeat, by the database's clock.
	Silence time.Duration `json:"silence_ns"`
	// Metadata is what the worker stores about itself, a JSON object. Version, Host, PID, Tasks and
	// Concurrency are read from it, as far as it has them.
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// Version is the version of its Graphile Worker.
	Version string `json:"version,omitempty"`
	// Host is the name of its machine.
	Host string `json:"host,omitempty"`
	// PID is the id of its process.
	PID int `json:"pid"`
	// Tasks are the identifiers of its tasks.
	Tasks []string `json:"tasks"`
	// Concurrency is how many jobs it runs at once.
	Concurrency int `json:"concurrency"`
	// Jobs is how many jobs it has locked.
	Jobs int64 `json:"jobs"`
	// Queues is how many queues it has locked.
	Queues int64 `json:"queues"`
	// OldestLock is the age of the oldest of these locks.
	OldestLock time.Duration `json:"oldest_lock_ns"`
}

// Workers returns the workers that are registered and those that have locks, of every
// runtime, by id. Node's workers do not register, so an idle one is not listed. On a schema
// that is older than the recovery tables, that is true of all workers.
func (c *Client) Workers(ctx context.Context) ([]WorkerInfo, error) {
	workers, err := admin.ListWorkers(ctx, c.queries, c.held())
	if err != nil {
		return nil, fmt.Errorf("listing workers: %w", err)
	}
	return converted(workers, func(w admin.Worker) WorkerInfo { return WorkerInfo(w) }), nil
}

// A Report is what Client.Doctor found. docs/doctor.md explains each finding. Each check
// has at most one finding; those that make no sense on what was found of the schema have
// none.
type Report struct {
	// Schema is the name of the schema.
	Schema string `json:"schema"`
	// Revision is the newest one in the schema's ledger, 0 without one.
	Revision int `json:"revision"`
	// Server is the version of PostgreSQL, such as "18.1".
	Server string `json:"server"`
	// CheckedAt is the database's time.
	CheckedAt time.Time `json:"checked_at"`
	// Worst is the worst severity among the findings.
	Worst Severity `json:"worst"`
	// Findings are what the checks found.
	Findings []Finding `json:"findings"`
}

// A Finding is one line of a Report: what was found, why it matters and what
// helps.
type Finding struct {
	// ID names the check; it does not change from release to release.
	ID string `json:"id"`
	// Severity says how bad it is.
	Severity Severity `json:"severity"`
	// What was found.
	What string `json:"what"`
	// Why it matters; empty if the finding is OK.
	Why string `json:"why,omitempty"`
	// Help is what helps, a line each: commands, SQL and its comments, advice.
	Help []string `json:"help,omitempty"`
}

// Find returns the finding of a check, by its id.
func (r Report) Find(id string) (Finding, bool) {
	at := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.ID == id })
	if at < 0 {
		return Finding{}, false
	}
	return r.Findings[at], true
}

// Count counts the findings of a severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Severity says how bad a finding is. Severities can be compared.
type Severity int8

// The severities, from harmless to bad.
const (
	SeverityOK      Severity = iota // nothing is wrong
	SeverityNote                    // worth knowing
	SeverityWarning                 // costs something now, or will become a problem
	SeverityProblem                 // jobs are late, stuck or in danger, or will be soon
)

// String returns the severity's name, such as "warning".
func (s Severity) String() string { return doctor.Severity(s).String() }

// MarshalText returns the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return doctor.Severity(s).MarshalText() }

// UnmarshalText reads a severity's name.
func (s *Severity) UnmarshalText(text []byte) error { return (*doctor.Severity)(s).UnmarshalText(text) }

// Doctor examines the server, the schema and the queue, and reports what is wrong
// with them. It reads only, and works on a database without the schema too. It
// needs one connection of the pool, and a second one for a moment.
//
// A check that cannot be made, for example without the necessary rights, is a finding. The
// error is for what ends the examination, such as a lost connection; the Report then has
// what was found before.
func (c *Client) Doctor(ctx context.Context) (Report, error) {
	if err := c.reach(ctx); err != nil {
		return Report{}, err
	}
	r, err := doctor.Examine(ctx, c.pool, doctor.Options{
		Schema: c.options.Schema, Timeout: c.options.Timeout, Unprepared: c.options.Unprepared,
	})
	return publicReport(r), err
}

func publicReport(r doctor.Report) Report {
	return Report{
		Schema: r.Schema, Revision: r.Revision, Server: r.Server, CheckedAt: r.CheckedAt, Worst: Severity(r.Worst),
		Findings: converted(r.Findings, func(f doctor.Finding) Finding {
			return Finding{ID: f.ID, Severity: Severity(f.Severity), What: f.What, Why: f.Why, Help: f.Help}
		}),
	}
}
