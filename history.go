package gworker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/eventstream"
	recording "github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// ErrNoHistory means that the schema has no tables of history, or that they are not this
// client's role's to read: Client.Migrate makes them, and Client.Grant gives the right.
var ErrNoHistory = errors.New("there is no history")

// JobHistory is what is known of one job.
type JobHistory struct {
	// Job is the job, or nil if it is gone.
	Job *JobInfo `json:"job,omitempty"`
	// Events are what happened to it, oldest first: the latest 1,000.
	Events []history.Event `json:"events"`
}

// JobHistory returns what happened to a job, which may be gone by now. Events are kept for
// Config.HistoryRetention. A job that completed at once, or was never recorded, has none. If
// there is neither a job nor an event, the error is ErrJobNotFound.
func (c *Client) JobHistory(ctx context.Context, id int64) (JobHistory, error) {
	failed := func(err error) (JobHistory, error) {
		return JobHistory{}, fmt.Errorf("reading the history of job %d: %w", id, err)
	}
	if err := c.checkHistory(ctx); err != nil {
		return failed(err)
	}
	var found JobHistory
	events, err := recording.Job(ctx, c.reads.list(false), id, mostEvents)
	if err != nil {
		return failed(err)
	}
	found.Events = events
	found.Job, err = c.GetJob(ctx, id)
	if errors.Is(err, ErrJobNotFound) && len(events) > 0 {
		err = nil
	}
	if err != nil {
		return JobHistory{}, err
	}
	return found, nil
}

const (
	defaultEvents = 100
	mostEvents    = 1000
)

// Events lists what happened, the latest first.
func (c *Client) Events(ctx context.Context, filter history.Filter) (history.Page, error) {
	failed := func(err error) (history.Page, error) {
		return history.Page{}, fmt.Errorf("reading events: %w", err)
	}
	switch {
	case filter.Limit < 0 || filter.Limit > mostEvents:
		return failed(problem("Filter.Limit", "is %d: it can be 1 to %d, or 0 for %d", filter.Limit, mostEvents, defaultEvents))
	case filter.Limit == 0:
		filter.Limit = defaultEvents
	}
	for _, kind := range filter.Kinds {
		if !slices.Contains(history.Kinds, kind) {
			return failed(problem("Filter.Kinds", "has %q: it can have %s", string(kind), list(history.Kinds)))
		}
	}
	for _, text := range []struct{ name, value string }{
		{"Queue", filter.Queue}, {"Key", filter.Key}, {"WorkerID", filter.WorkerID}, {"Error", filter.Error},
	} {
		if err := checkText("Filter."+text.name, text.value, maxKeyLength); err != nil {
			return failed(err)
		}
	}
	if err := c.checkHistory(ctx); err != nil {
		return failed(err)
	}
	page, err := recording.Events(ctx, c.reads.list(false), filter)
	if errors.Is(err, recording.ErrCursor) {
		return failed(problem("Filter.Cursor", "%v", err))
	}
	if err != nil {
		return failed(err)
	}
	return page, nil
}

// TaskStats returns how many runs ended how, and how long jobs waited and ran: a row for
// each task that ran, and for each interval of time if StatsOptions.By says so.
func (c *Client) TaskStats(ctx context.Context, options history.StatsOptions) ([]history.TaskStats, error) {
	failed := func(err error) ([]history.TaskStats, error) {
		return nil, fmt.Errorf("reading statistics: %w", err)
	}
	switch {
	case !slices.Contains([]history.Interval{history.Whole, history.Minute, history.Hour, history.Day}, options.By):
		return failed(problem("StatsOptions.By", "is %q: it can be minute, hour or day, or empty", string(options.By)))
	case !options.Until.IsZero() && !options.Since.Before(options.Until):
		return failed(problem("StatsOptions.Since", "is not before Until"))
	}
	if err := c.checkHistory(ctx); err != nil {
		return failed(err)
	}
	stats, err := recording.Stats(ctx, c.reads.list(false), options)
	if err != nil {
		return failed(err)
	}
	return stats, nil
}

// HistorySize is one table of history.
type HistorySize struct {
	// Table is its name; those of events have their day in it.
	Table string `json:"table"`
	// Rows is the estimated number of its rows, and Bytes its size with its indexes.
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"` // see Rows
}

// HistorySize returns the tables of history. It is empty without any.
func (c *Client) HistorySize(ctx context.Context) ([]HistorySize, error) {
	rows, err := c.reads.list(false).HistorySize(ctx, c.options.Schema.String())
	if err != nil {
		return nil, fmt.Errorf("reading the size of history: %w", err)
	}
	sizes := make([]HistorySize, len(rows))
	for i, row := range rows {
		sizes[i] = HistorySize{Table: row.Name, Rows: row.Rows, Bytes: row.Bytes}
	}
	return sizes, nil
}

// UninstallHistory takes the tables of history away with everything in them, and leaves the
// queue as it is. Workers that run go on without, and report it once (event.HistoryDropped).
// Client.Migrate, and each worker that starts, make the tables again: see Config.History.
func (c *Client) UninstallHistory(ctx context.Context) error {
	if err := c.reach(ctx); err != nil {
		return err
	}
	if err := migrate.DropHistory(ctx, c.pool, c.options.Schema); err != nil {
		return fmt.Errorf("uninstalling the history of schema %q: %w", c.options.Schema, err)
	}
	return nil
}

// checkHistory returns why history cannot be read.
func (c *Client) checkHistory(ctx context.Context) error {
	found, err := migrate.ReadHistory(ctx, c.reads.list(false), c.options.Schema)
	switch {
	case err != nil:
		return err
	case found.Version == 0:
		return fmt.Errorf("%w in schema %q: %s migrate makes its tables", ErrNoHistory, c.options.Schema, program.Name)
	case !found.Reads:
		return fmt.Errorf("%w for role %q in schema %q: %s grant reader gives the right to read it", ErrNoHistory, found.Role, c.options.Schema, program.Name)
	}
	return nil
}

// change has jobs changed, and records that.
func (c *operations) change(
	ctx context.Context, ids []int64, action recording.Action, run func(*dbgen.Queries) (admin.Changed, error),
) (result admin.Changed, err error) {
	if len(ids) == 0 {
		return result, nil
	}
	err = c.actions.Record(ctx, c.queries, action, func(q *dbgen.Queries) (ids []int64, err error) {
		result, err = run(q)
		for _, j := range result.Jobs {
			ids = append(ids, j.ID)
		}
		return ids, err
	})
	if err != nil {
		return admin.Changed{}, err
	}
	return result, nil
}

// recorded is what history says of the options.
func (o RescheduleOptions) recorded() any {
	return struct {
		RunAt       *time.Time `json:"run_at,omitempty"` // the zero time is now
		Priority    *int       `json:"priority,omitempty"`
		Attempts    *int       `json:"attempts,omitempty"`
		MaxAttempts *int       `json:"max_attempts,omitempty"`
	}(o)
}

// installHistory makes the tables of history where that can be done. What keeps it from
// that is a SchemaWarning.
func installHistory(
	ctx context.Context, pool *pgxpool.Pool, set *statement.Set, name schema.Name, events *eventstream.Stream,
) (found migrate.History, err error) {
	found, err = migrate.ReadHistory(ctx, set.On(pool), name)
	if err != nil {
		return found, fmt.Errorf("looking for the tables of history: %w", err)
	}
	if found.Version < migrate.NewestHistory && found.Creates {
		if err := migrate.UpHistory(ctx, pool, name); err != nil {
			return found, fmt.Errorf("making the tables of history in schema %q: %w", name, err)
		}
		if found, err = migrate.ReadHistory(ctx, set.On(pool), name); err != nil {
			return found, fmt.Errorf("looking for the tables of history: %w", err)
		}
		events.Emit(event.HistoryInstalled{Schema: name.String(), Version: found.Version})
	}
	warn := func(format string, args ...any) {
		events.Emit(event.SchemaWarning{Schema: name.String(), Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case found.Version < migrate.NewestHistory:
		warn("role %q may not make the tables of history, so nothing is recorded: let the owner of schema %q run %s migrate, "+
			"or grant create on the schema to the role", found.Role, name, program.Name)
	case !found.Records:
		warn("role %q may not record history in schema %q: let its owner run %s grant worker, also if that was done before", found.Role, name, program.Name)
	}
	return found, nil
}

func (c *Client) installHistory(ctx context.Context, events *eventstream.Stream) error {
	_, err := installHistory(ctx, c.pool, c.unchecked, c.options.Schema, events)
	return err
}

// newRecorder makes what notes the ends of jobs; nil if nothing is to be recorded.
func (w *Worker) newRecorder() *recording.Recorder {
	c := recording.Config{
		WorkerID: w.id, Level: levelOf(w.config.History), Tasks: map[string]recording.Level{}, Cap: w.config.HistoryCap, Events: w.events,
	}
	records := c.Level != recording.Off
	for _, task := range w.config.Tasks {
		if own := task.options.History; own != "" {
			c.Tasks[task.identifier] = levelOf(own)
			records = records || own != history.Off
		}
	}
	if !records {
		return nil
	}
	return recording.NewRecorder(c)
}

func levelOf(l history.Level) recording.Level {
	if l == history.Off {
		return recording.Off
	}
	return recording.Failures
}

// keepHistory lets the worker record, if it can. The result runs until it is told to end.
func (w *Worker) keepHistory(ctx context.Context) (*recording.Keeper, error) {
	if w.recorder == nil {
		return nil, nil
	}
	var found migrate.History
	var err error
	if w.config.NoMigrations {
		found, err = migrate.ReadHistory(ctx, w.client.unchecked.On(w.pool), w.options.Schema)
	} else {
		found, err = installHistory(ctx, w.pool, w.client.unchecked, w.options.Schema, w.events)
	}
	switch {
	case retry.Refused(err):
		w.events.Emit(event.SchemaWarning{Schema: w.options.Schema.String(), Message: fmt.Sprintf("nothing is recorded: %v", err)})
		return nil, nil
	case err != nil:
		return nil, err // the database is gone, so that Run begins again
	case !found.Records || found.Version < migrate.NewestHistory:
		return nil, nil
	}
	w.recorder.Start()
	kept := w.config.HistoryRetention
	return &recording.Keeper{
		Recorder: w.recorder, Queries: w.client.unchecked.OnPool(w.pool, w.trouble), Due: found.Due,
		Retention: recording.Retention{Events: kept.Events, Minutes: kept.Minutes, Hours: kept.Hours},
	}, nil
}

// validateHistory returns the configuration with the defaults of history.
func (c Config) validateHistory() (Config, error) {
	if err := checkLevel("Config.History", c.History); err != nil {
		return c, err
	}
	kept := &c.HistoryRetention
	for _, d := range []struct {
		name           string
		value          *time.Duration
		initial, least time.Duration
	}{
		{"Events", &kept.Events, history.DefaultEvents, 24 * time.Hour},
		{"Minutes", &kept.Minutes, history.DefaultMinutes, 2 * time.Hour},
		{"Hours", &kept.Hours, history.DefaultHours, 48 * time.Hour},
	} {
		switch {
		case *d.value == 0:
			*d.value = d.initial
		case *d.value < d.least:
			return c, problem("Config.HistoryRetention."+d.name, "is %s: it must be at least %s", *d.value, d.least)
		}
	}
	switch {
	case c.HistoryCap < 0:
		return c, problem("Config.HistoryCap", "is %d: it cannot be negative", c.HistoryCap)
	case c.HistoryCap == 0:
		c.HistoryCap = DefaultHistoryCap
	}
	return c, nil
}

// DefaultHistoryCap is the default of Config.HistoryCap.
const DefaultHistoryCap = 100

func checkLevel(field string, level history.Level) error {
	if !slices.Contains([]history.Level{"", history.Off, history.Failures}, level) {
		return problem(field, "is %q: it can be off or failures, or empty for the default", string(level))
	}
	return nil
}

func list[T ~string](values []T) string {
	text := ""
	for i, v := range values {
		switch {
		case i == 0:
		case i == len(values)-1:
			text += " and "
		default:
			text += ", "
		}
		text += string(v)
	}
	return text
}
