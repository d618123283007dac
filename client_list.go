package gworker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/job"
)

// JobState says whether a job runs, and what it waits for otherwise, at one moment by the
// database's clock. Each job is in exactly one state.
type JobState string

// The states of jobs.
const (
	// StateScheduled: the job's time has not come, and it has not been tried.
	StateScheduled JobState = "scheduled"
	// StateReady: a worker that has the task can start it. Of several ready jobs of one
	// queue, one starts at a time. Jobs that another process holds without a lock (see
	// Config.HoldTime) count as ready, too.
	StateReady JobState = "ready"
	// StateBlocked: its time has come, and its queue is locked by another job.
	StateBlocked JobState = "blocked"
	// StateRunning: a worker has locked it, or the client's own worker holds it without
	// a lock. The row does not say whether that worker is alive; see Client.Workers.
	StateRunning JobState = "running"
	// StateRetrying: it has been tried, and its time has not come again.
	StateRetrying JobState = "retrying"
	// StateFailed: it has used up its attempts, and no worker will run it.
	StateFailed JobState = "failed"
)

// JobOrder is the order of a listing.
type JobOrder string

// The orders of a listing.
const (
	// OrderByID lists the oldest jobs first. It is the default.
	OrderByID JobOrder = "id"
	// OrderNewestFirst lists the newest jobs first.
	OrderNewestFirst JobOrder = "newest"
	// OrderNext lists jobs in the order in which workers claim them: by priority, then
	// run time. It leaves out running and failed jobs.
	OrderNext JobOrder = "next"
)

// The bounds of JobFilter.Limit and QueueFilter.Limit.
const (
	DefaultPageSize = 100    // what a Limit of 0 means
	MaxPageSize     = 10_000 // the largest Limit
)

// TimeRange is the time from From on and before Before. A zero time is no bound.
type TimeRange struct {
	// From is the first moment of the range.
	From time.Time
	// Before is the moment at which it ends, itself not included.
	Before time.Time
}

// JobFilter says which jobs ListJobs returns. An empty field matches every job; a list
// matches jobs that match one of its entries. The zero value is the first 100 jobs.
type JobFilter struct {
	// States are the states to list.
	States []JobState
	// Tasks are task identifiers.
	Tasks []string
	// Queues are names of queues; "" stands for jobs without a queue.
	Queues []string
	// Keys are job keys.
	Keys []string
	// Workers are ids of workers that have locked the jobs.
	Workers []string
	// Flags must all be set on the job.
	Flags []string
	// ErrorContains is a part of the last error; upper and lower case match.
	ErrorContains string

	// MinPriority is the lowest priority to list; nil is no bound.
	MinPriority *int
	// MaxPriority is the highest priority to list; nil is no bound.
	MaxPriority *int
	// RunAt is when the jobs run.
	RunAt TimeRange
	// CreatedAt is when the jobs were added.
	CreatedAt TimeRange
	// UpdatedAt is when the rows were last changed. A failure is an update, so of
	// failed jobs it is when they failed.
	UpdatedAt TimeRange

	// Order is the order of the listing. "" means OrderByID.
	Order JobOrder
	// Limit is how many jobs a page has: 1 to 10,000. 0 means 100.
	Limit int
	// Cursor is the NextCursor of the previous page, with the same Order. "" means the
	// first page.
	Cursor string
	// WithPayload reads the payloads, too.
	WithPayload bool
}

// JobPage is a page of ListJobs.
type JobPage struct {
	// Jobs are the jobs of the page, in the order that was asked for.
	Jobs []*JobInfo `json:"jobs"`
	// NextCursor asks for the next page; it is "" on the last one.
	NextCursor string `json:"next_cursor,omitempty"`
}

// encode validates a filter.
func (f JobFilter) encode() (admin.Filter, error) {
	e := admin.Filter{
		States: converted(f.States, func(s JobState) job.State { return job.State(s) }), Tasks: f.Tasks, Queues: f.Queues, Keys: f.Keys, Workers: f.Workers, Flags: f.Flags,
		ErrorContains: f.ErrorContains,
		RunAt:         admin.TimeRange(f.RunAt), CreatedAt: admin.TimeRange(f.CreatedAt), UpdatedAt: admin.TimeRange(f.UpdatedAt),
		Order: admin.Order(f.Order), Limit: f.Limit, Payload: f.WithPayload,
	}
	if e.Order == "" {
		e.Order = admin.ByID
	}
	switch f.Order {
	case "", OrderByID, OrderNewestFirst, OrderNext:
	default:
		return e, problem("JobFilter.Order", "is %q: it can be %s, %s or %s", f.Order, OrderByID, OrderNewestFirst, OrderNext)
	}
	for i, s := range f.States {
		field := fmt.Sprintf("JobFilter.States[%d]", i)
		if !slices.Contains(job.States, job.State(s)) {
			return e, problem(field, "is %q: it can be %s", s, stateNames())
		}
		if f.Order == OrderNext && (s == StateRunning || s == StateFailed) {
			return e, problem(field, "is %s: the order %s has no place for such jobs", s, OrderNext)
		}
	}
	if err := f.checkTexts(); err != nil {
		return e, err
	}
	for _, p := range []struct {
		name  string
		given *int
		into  **int32
	}{{"MinPriority", f.MinPriority, &e.MinPriority}, {"MaxPriority", f.MaxPriority, &e.MaxPriority}} {
		if p.given == nil {
			continue
		}
		// Bounds that no job can have are allowed, and must not overflow.
		value := int32(max(math.MinInt32, min(math.MaxInt32, *p.given)))
		*p.into = &value
	}
	var err error
	if e.Limit, err = pageSize("JobFilter.Limit", f.Limit); err != nil {
		return e, err
	}
	if f.Cursor != "" {
		if e.After, err = admin.ParseCursor(f.Cursor, e.Order); err != nil {
			return e, problem("JobFilter.Cursor", "%v", err)
		}
	}
	return e, nil
}

func (f JobFilter) checkTexts() error {
	for _, list := range []struct {
		name  string
		texts []string
	}{{"Tasks", f.Tasks}, {"Queues", f.Queues}, {"Keys", f.Keys}, {"Workers", f.Workers}, {"Flags", f.Flags}} {
		for i, text := range list.texts {
			if err := checkText(fmt.Sprintf("JobFilter.%s[%d]", list.name, i), text, math.MaxInt); err != nil {
				return err
			}
		}
	}
	for _, r := range []struct {
		name  string
		given TimeRange
	}{{"RunAt", f.RunAt}, {"CreatedAt", f.CreatedAt}, {"UpdatedAt", f.UpdatedAt}} {
		for _, bound := range []struct {
			name string
			at   time.Time
		}{{"From", r.given.From}, {"Before", r.given.Before}} {
			if err := checkTime("JobFilter."+r.name+"."+bound.name, bound.at); err != nil {
				return err
			}
		}
	}
	return checkText("JobFilter.ErrorContains", f.ErrorContains, math.MaxInt)
}

func stateNames() string {
	names := make([]string, len(job.States))
	for i, s := range job.States {
		names[i] = string(s)
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

func pageSize(field string, limit int) (int, error) {
	switch {
	case limit < 0 || limit > MaxPageSize:
		return 0, problem(field, "is %d: it can be 1 to %d, or 0 for %d", limit, MaxPageSize, DefaultPageSize)
	case limit == 0:
		return DefaultPageSize, nil
	}
	return limit, nil
}

// ListJobs returns one page of the jobs that match a filter. Ask for the next page with the
// page's NextCursor:
//
//	filter := gworker.JobFilter{States: []gworker.JobState{gworker.StateFailed}}
//	for {
//		page, err := client.ListJobs(ctx, filter)
//		...
//		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
//			break
//		}
//	}
//
// Each page is read at a different moment. A job that exists all the time and does not
// change is listed exactly once, whatever is added and deleted meanwhile; a job that moves
// in the order, like a rescheduled one in OrderNext, may be listed twice or not at all.
func (c *operations) ListJobs(ctx context.Context, filter JobFilter) (JobPage, error) {
	encoded, err := filter.encode()
	if err != nil {
		return JobPage{}, fmt.Errorf("listing jobs: %w", err)
	}
	encoded.Held = c.held()
	page, err := admin.List(ctx, c.reads.list(encoded.Payload), encoded)
	if err != nil {
		return JobPage{}, fmt.Errorf("listing jobs: %w", err)
	}
	return jobPage(page), nil
}

func jobPage(p admin.Page) JobPage { return JobPage{Jobs: jobInfos(p.Jobs), NextCursor: p.NextCursor} }
