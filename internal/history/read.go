package history

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/dbgen"
)

// Job reads the latest events about a job, oldest first.
func Job(ctx context.Context, q *dbgen.Queries, id int64, most int) ([]history.Event, error) {
	rows, err := q.JobEvents(ctx, dbgen.JobEventsParams{ID: id, Most: int32(most)})
	if err != nil {
		return nil, err
	}
	events := make([]history.Event, 0, len(rows))
	for _, row := range slices.Backward(rows) {
		events = append(events, eventOf(dbgen.EventsRow(row)))
	}
	return events, nil
}

// position is a place in a listing.
type position struct {
	At  time.Time `json:"at"`
	Seq int64     `json:"seq"`
}

// ErrCursor is the error of a cursor that no page has.
var ErrCursor = errors.New("is not the cursor of a page of events")

// Events lists events, the latest first. The filter has its limit.
func Events(ctx context.Context, q *dbgen.Queries, f history.Filter) (history.Page, error) {
	p := dbgen.EventsParams{
		Since: timeOrNil(f.Since), Until: timeOrNil(f.Until), Kinds: []string{}, Tasks: append([]string{}, f.Tasks...),
		Queue: f.Queue, Key: f.Key, Worker: f.WorkerID, Error: f.Error, Most: int32(f.Limit) + 1,
	}
	for _, kind := range f.Kinds {
		p.Kinds = append(p.Kinds, string(kind))
	}
	if f.Cursor != "" {
		text, err := base64.RawURLEncoding.DecodeString(f.Cursor)
		var at position
		if err != nil || json.Unmarshal(text, &at) != nil || at.At.IsZero() {
			return history.Page{}, ErrCursor
		}
		p.Before, p.BeforeSeq = &at.At, at.Seq
	}
	rows, err := q.Events(ctx, p)
	if err != nil {
		return history.Page{}, err
	}
	page := history.Page{Events: []history.Event{}}
	if len(rows) > f.Limit {
		rows = rows[:f.Limit]
		last := rows[len(rows)-1]
		text, err := json.Marshal(position{At: last.At.Time, Seq: last.Seq})
		if err != nil {
			return history.Page{}, fmt.Errorf("making a cursor: %w", err)
		}
		page.NextCursor = base64.RawURLEncoding.EncodeToString(text)
	}
	for _, row := range rows {
		page.Events = append(page.Events, eventOf(row))
	}
	return page, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func eventOf(row dbgen.EventsRow) history.Event {
	e := history.Event{
		At: row.At.Time, Kind: history.Kind(row.Kind), JobID: of(row.JobID), JobIDs: row.Jobs,
		Task: of(row.Task), Queue: of(row.Queue), Key: of(row.Key), Attempt: int(of(row.Attempt)), MaxAttempts: int(of(row.MaxAttempts)),
		WorkerID: of(row.Worker), Waited: fromMilliseconds(of(row.WaitMs)), Ran: fromMilliseconds(of(row.RunMs)),
		Error: of(row.Error), Details: row.Details,
	}
	var details struct {
		RunAt time.Time `json:"run_at"`
	}
	if json.Unmarshal(row.Details, &details) == nil {
		e.NextRunAt = details.RunAt
	}
	return e
}

func of[T any](value *T) T {
	if value == nil {
		return *new(T)
	}
	return *value
}

func fromMilliseconds(ms float32) time.Duration {
	return time.Duration(float64(ms) * float64(time.Millisecond)).Round(time.Microsecond)
}

// Stats reads statistics, by time and then by task.
func Stats(ctx context.Context, q *dbgen.Queries, o history.StatsOptions) ([]history.TaskStats, error) {
	reach, err := q.StatsReach(ctx)
	if err != nil {
		return nil, err
	}
	if o.Until.IsZero() {
		o.Until = reach.Now.Add(time.Minute)
	}
	if o.Since.IsZero() {
		o.Since = reach.Now.Add(-24 * time.Hour)
	}
	p := dbgen.TaskStatsParams{Tasks: append([]string{}, o.Tasks...)}
	for _, part := range parts(o, reach.HoursUntil, reach.DaysUntil) {
		p.Spans = append(p.Spans, string(part.span))
		p.Sinces, p.Untils = append(p.Sinces, part.since), append(p.Untils, part.until)
	}
	rows, err := q.TaskStats(ctx, p)
	if err != nil {
		return nil, err
	}
	type at struct {
		task  string
		since time.Time
	}
	sums := map[at]*sum{}
	for _, row := range rows {
		key := at{row.Task, o.Since.UTC()}
		if length := lengths[o.By]; length > 0 {
			key.since = row.At.UTC().Truncate(length)
		}
		if sums[key] == nil {
			sums[key] = &sum{}
		}
		sums[key].add(row)
	}
	stats := make([]history.TaskStats, 0, len(sums))
	for key, s := range sums {
		s.Task, s.Since = key.task, key.since
		s.Ran, s.Waited = durations(s.runs[:], s.run), durations(s.waits[:], s.wait)
		stats = append(stats, s.TaskStats)
	}
	slices.SortFunc(stats, func(a, b history.TaskStats) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Task, b.Task))
	})
	return stats, nil
}

var lengths = map[history.Interval]time.Duration{history.Minute: time.Minute, history.Hour: time.Hour, history.Day: 24 * time.Hour}

// sum is statistics that are added up.
type sum struct {
	history.TaskStats
	run, wait   float64
	runs, waits [Slots]int64
}

func (s *sum) add(row dbgen.TaskStatsRow) {
	s.Completed += row.Completed
	s.Failed += row.Failed
	s.PermanentlyFailed += row.PermanentlyFailed
	s.Returned += row.Returned
	s.Snoozed += row.Snoozed
	s.run, s.wait = s.run+row.RunSeconds, s.wait+row.WaitSeconds
	for i, n := range row.Runs[:min(Slots, len(row.Runs))] {
		s.runs[i] += n
	}
	for i, n := range row.Waits[:min(Slots, len(row.Waits))] {
		s.waits[i] += n
	}
}

func durations(bins []int64, seconds float64) history.Durations {
	count := int64(0)
	for _, n := range bins {
		count += n
	}
	if count == 0 {
		return history.Durations{}
	}
	in := func(seconds float64) time.Duration {
		return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
	}
	return history.Durations{
		Mean: in(seconds / float64(count)), P50: in(Percentile(bins, 0.5)), P90: in(Percentile(bins, 0.9)), P99: in(Percentile(bins, 0.99)),
	}
}

// part is some time, read from rows of one span.
type part struct {
	span         history.Interval
	since, until time.Time
}

// parts are the rows to read, each time once: days and hours as far as they were added up
// and are wanted no finer, and minutes for the rest. More than two days ago are whole hours
// only, as minutes need not be kept for longer.
func parts(o history.StatsOptions, hoursUntil, daysUntil time.Time) []part {
	since, until := o.Since.UTC().Truncate(time.Minute), o.Until.UTC()
	if o.By == history.Minute {
		return []part{{history.Minute, since, until}}
	}
	var list []part
	add := func(span history.Interval, from, to time.Time) {
		if from.Before(to) {
			list = append(list, part{span, from, to})
		}
	}
	// Whole hours, of which those of whole days may be read from days.
	firstHour := since.Add(time.Hour - 1).Truncate(time.Hour)
	if until.Sub(since) > 26*time.Hour || o.By != history.Whole {
		since = since.Truncate(time.Hour)
		firstHour = since
	}
	hoursEnd := earlier(hoursUntil.UTC(), until.Truncate(time.Hour))
	if hoursEnd.Before(firstHour) {
		add(history.Minute, since, until)
		return list
	}
	add(history.Minute, since, firstHour)
	const day = 24 * time.Hour
	firstDay, daysEnd := firstHour.Add(day-1).Truncate(day), earlier(daysUntil.UTC(), until.Truncate(day))
	if o.By != history.Hour && until.Sub(since) > 7*day && firstDay.Before(daysEnd) {
		if o.By == history.Day || until.Sub(since) > 60*day {
			firstDay = firstHour.Truncate(day)
			firstHour = firstDay
		}
		add(history.Hour, firstHour, firstDay)
		add(history.Day, firstDay, daysEnd)
		firstHour = daysEnd
	}
	add(history.Hour, firstHour, hoursEnd)
	add(history.Minute, hoursEnd, until)
	return list
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
