package gworker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/store"
)

// maxCronIdentifierLength is a bound of our own: the column's index has one.
const maxCronIdentifierLength = 512

// CronConfig says which jobs a worker adds at which times. Without entries cron
// is off, until Worker.AddCronItem adds one.
//
// Any number of workers, of any runtime, may have the same entries: each minute of an entry
// adds one job. Entries are the same if their identifiers are.
type CronConfig struct {
	// Crontab is the text of a crontab, in the format of docs/cron.md; that is
	// Node's, with time zones.
	Crontab string

	// Items are entries that are built in Go. Their identifiers must differ from
	// each other and from those of Crontab.
	Items []CronItem
}

// CronItem is an entry of a crontab: a job that is added again and again. Only
// Schedule and Task are required.
type CronItem struct {
	// Schedule says when: the five fields of a crontab, minute, hour, day of
	// month, month and day of week, such as "0 4 * * 1-5". docs/cron.md has what
	// a field can be.
	Schedule string

	// TimeZone is the time zone of Schedule: a name of the IANA database, such as
	// Europe/Paris. "" means UTC. Names are looked up in the system's
	// database; a program for systems without one imports time/tzdata.
	TimeZone string

	// Task is the identifier of the task that shall run the jobs: 1 to 128
	// characters. This worker need not have it.
	Task string

	// Identifier is the name under which the database stores when the entry was last
	// scheduled: up to 512 characters. "" means Task. Two entries for one task need
	// different ones. An entry whose identifier changes is a new entry.
	Identifier string

	// Payload is the payload of the jobs, any value that encoding/json marshals to an
	// object. The member _cron is added to it, see CronPayload. nil means {}.
	Payload any

	// Fill is how far back missed minutes are backfilled: a worker that starts adds the
	// jobs of the minutes that passed while no worker ran, oldest first, but not of
	// minutes before the entry was first known. 0 means no backfill.
	Fill time.Duration

	// MaxAttempts is how often each job is tried: 1 to 32767. 0 means the
	// schema's default, 25.
	MaxAttempts int

	// Queue names a queue whose jobs run one after another. "" means none.
	Queue string

	// Key is a job key: if the job of an earlier minute has not run, the next one
	// replaces it. "" means no key, so that jobs accumulate.
	Key string

	// KeyMode is KeyReplace or KeyPreserveRunAt. "" means KeyReplace.
	KeyMode KeyMode

	// Priority orders runnable jobs, lower numbers first: -32768 to 32767.
	Priority int

	// Flags are names by which workers can be told to leave the jobs alone. A crontab's
	// text cannot have them.
	Flags []string

	// refused is why the TaskDefinition that the item is from cannot make one.
	refused error
}

// CronPayload is the part of a cron job's payload that cron adds. Embed it in
// the type of a payload to have it decoded:
//
//	type Report struct {
//		gworker.CronPayload
//		Region string `json:"region"`
//	}
type CronPayload struct {
	// Cron says for which minute the job was added.
	Cron CronRun `json:"_cron"`
}

// CronRun says for which minute a cron job was added.
type CronRun struct {
	// Time is the minute at which the entry was due.
	Time time.Time `json:"ts"`
	// Backfilled is true if the minute was missed, and its job added later.
	Backfilled bool `json:"backfilled"`
}

// CrontabError is what is wrong with one line of a crontab.
type CrontabError struct {
	// Line is the number of the line, counted from 1.
	Line int
	// Field names what is wrong: minute, hour, day of month, month, day of week,
	// task, options or one option's name, payload, line or CRON_TZ.
	Field string
	// Problem says what is wrong with it.
	Problem string
}

// Error names the line, the field and the problem.
func (e *CrontabError) Error() string { return (*cron.Error)(e).Error() }

// CrontabErrors is everything that is wrong with a crontab, in the order of the lines.
type CrontabErrors []*CrontabError

// Error has a line for each of them.
func (e CrontabErrors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As each of them.
func (e CrontabErrors) Unwrap() []error {
	return converted(e, func(one *CrontabError) error { return one })
}

// ErrDuplicateCronItem is returned by AddCronItem for an item whose identifier
// another item of the worker has.
var ErrDuplicateCronItem = cron.ErrDuplicate

// ParseCrontab reads a crontab. The error, if any, is a CrontabErrors; the items
// of the lines without errors are still returned.
func ParseCrontab(text string) ([]CronItem, error) {
	parsed, errs := cron.Parse(text)
	items := make([]CronItem, len(parsed))
	for i := range parsed {
		items[i] = publicCronItem(&parsed[i])
	}
	if len(errs) > 0 {
		return items, CrontabErrors(converted(errs, func(e *cron.Error) *CrontabError { return (*CrontabError)(e) }))
	}
	return items, nil
}

// Next returns the next n times after t at which the item is due, fewer if there
// are no more within nine years. They are in the item's time zone. The error is
// that of an item that cannot be used.
func (i CronItem) Next(t time.Time, n int) ([]time.Time, error) {
	item, err := i.encode("CronItem")
	if err != nil {
		return nil, err
	}
	var times []time.Time
	for len(times) < n {
		if t = item.Next(t); t.IsZero() {
			break
		}
		times = append(times, t.In(item.Zone.Location()))
	}
	return times, nil
}

func publicCronItem(i *cron.Item) CronItem {
	public := CronItem{
		Schedule: i.Schedule.String(), TimeZone: i.Zone.Name(), Task: i.Task, Identifier: i.Identifier, Fill: i.Fill,
		MaxAttempts: i.MaxAttempts, Queue: i.Queue, Key: i.Key, KeyMode: KeyMode(i.KeyMode), Priority: i.Priority,
		Flags: slices.Clone(i.Flags),
	}
	if i.Payload != nil {
		public.Payload = i.Payload
	}
	return public
}

// items validates the configuration.
func (c CronConfig) items() ([]cron.Item, error) {
	items, errs := cron.Parse(c.Crontab)
	if len(errs) > 0 {
		lines := make([]string, len(errs))
		for i, err := range errs {
			lines[i] = err.Error()
		}
		return nil, problem("Config.Cron.Crontab", "cannot be read: %s", strings.Join(lines, "; "))
	}
	owners := make(map[string]string, len(items)+len(c.Items))
	for _, item := range items {
		owners[item.Identifier] = fmt.Sprintf("line %d of Config.Cron.Crontab", item.Line)
	}
	for n, public := range c.Items {
		field := fmt.Sprintf("Config.Cron.Items[%d]", n)
		item, err := public.encode(field)
		if err != nil {
			return nil, err
		}
		if owner, ok := owners[item.Identifier]; ok {
			return nil, problem(field+".Identifier", "is %q, as that of %s is: give one of them its own", item.Identifier, owner)
		}
		owners[item.Identifier] = field
		items = append(items, item)
	}
	return items, nil
}

// encode validates an item; field is how errors name it.
func (i CronItem) encode(field string) (cron.Item, error) {
	if i.refused != nil {
		return cron.Item{}, fmt.Errorf("%s%s: %w", field, ofTask(i.Task), i.refused)
	}
	schedule, err := cron.ParseSchedule(i.Schedule)
	if err != nil {
		return cron.Item{}, problem(field+".Schedule", "is %q: %v", i.Schedule, err)
	}
	zone, err := cron.ParseZone(i.TimeZone)
	if err != nil {
		return cron.Item{}, problem(field+".TimeZone", "%v", err)
	}
	// What the item and its jobs share has the same limits.
	spec, err := JobSpec{
		Task: i.Task, Queue: i.Queue, MaxAttempts: i.MaxAttempts, Key: i.Key, KeyMode: i.KeyMode, Priority: i.Priority,
		Payload: i.Payload, Flags: i.Flags,
	}.encode(field)
	if err != nil {
		return cron.Item{}, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(spec.Payload, &object); err != nil || object == nil {
		return cron.Item{}, problem(field+".Payload", "is no JSON object, which cron needs to add its member _cron")
	}
	if i.KeyMode == KeyUnsafeDedupe {
		return cron.Item{}, problem(field+".KeyMode", "is %s: it can be %s or %s", i.KeyMode, KeyReplace, KeyPreserveRunAt)
	}
	if i.Fill < 0 {
		return cron.Item{}, problem(field+".Fill", "is %s: it cannot be negative", i.Fill)
	}
	item := cron.Item{
		Schedule: schedule, Zone: zone, Task: i.Task, Identifier: i.Identifier, Fill: i.Fill,
		MaxAttempts: i.MaxAttempts, Queue: i.Queue, Key: i.Key, KeyMode: string(i.KeyMode), Priority: i.Priority,
		Flags: slices.Clone(i.Flags),
	}
	if i.Payload != nil {
		item.Payload = spec.Payload
	}
	if item.Identifier == "" {
		item.Identifier = i.Task
	}
	return item, checkText(field+".Identifier", item.Identifier, maxCronIdentifierLength)
}

// CronEntry is a cron item of a worker, and when it is due next.
type CronEntry struct {
	// CronItem is the item.
	CronItem
	// Next is the next time by the worker's clock, in the item's time zone; the
	// zero time if there is none within nine years.
	Next time.Time
}

// CronItems lists the worker's cron items: those of the configuration, then
// those that were added, in that order. It is safe for concurrent use.
func (w *Worker) CronItems() []CronEntry {
	items := w.cronItems.Items()
	entries := make([]CronEntry, len(items))
	for i := range items {
		entries[i].CronItem = publicCronItem(&items[i])
		if next := items[i].Next(w.cronClock().Now()); !next.IsZero() {
			entries[i].Next = next.In(items[i].Zone.Location())
		}
	}
	return entries
}

// AddCronItem adds an item, before Run or while it runs; it is due from then on.
// It is registered in the database at once. If its identifier was known there before, its
// missed minutes are backfilled as its Fill says, as at a start.
//
// The item belongs only to this worker and is forgotten when it ends. The error is a
// *FieldError for an item that cannot be used, or ErrDuplicateCronItem. It is safe for
// concurrent use.
func (w *Worker) AddCronItem(item CronItem) error {
	encoded, err := item.encode("CronItem")
	if err != nil {
		return fmt.Errorf("adding a cron item: %w", err)
	}
	if err := w.cronItems.Add(encoded, w.cronClock().Now()); err != nil {
		return fmt.Errorf("adding the cron item %q: %w", encoded.Identifier, err)
	}
	return nil
}

// RemoveCronItem removes the item with an identifier and reports whether there was one. It is
// no longer due in this worker; a minute that is being scheduled at that moment may still add
// its job. Jobs that it has added stay, and so does its row in the database, since other
// workers may still have the item. It is safe for concurrent use.
func (w *Worker) RemoveCronItem(identifier string) bool {
	return w.cronItems.Remove(identifier)
}

// runAndSchedule runs jobs and cron until ctx ends.
func (w *Worker) runAndSchedule(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	loop := &cron.Loop{
		WorkerID: w.id, Queries: w.client.queries, Events: w.events, Clock: w.cronClock(), Items: w.cronItems,
	}
	if len(w.client.before) > 0 {
		loop.BeforeAdd = w.beforeCronAdd
	}
	loops.Go(func() { loop.Run(ctx) })
	if len(w.config.Tasks) == 0 {
		<-ctx.Done()
		return nil
	}
	return w.scheduler.Run(ctx)
}

// cronClock is Config.Now, or the machine's clock.
func (w *Worker) cronClock() cron.Clock {
	clock := cron.SystemClock
	if w.config.Now != nil {
		clock.Now = w.config.Now
	}
	return clock
}

// runOnce runs jobs until none is runnable. There is no cron then, as on Node.
func (w *Worker) runOnce(ctx context.Context) error {
	if len(w.config.Tasks) == 0 {
		return nil
	}
	return w.scheduler.RunOnce(ctx)
}

// beforeCronAdd calls the interceptors of Config.BeforeAdd for the job of a cron item. Their
// error is reported as CronItemFailed.
func (w *Worker) beforeCronAdd(ctx context.Context, s store.Spec) (changed store.Spec, add bool, err error) {
	trouble := contain.Call(func() {
		var spec JobSpec
		if spec, err = w.client.beforeAdd(ctx, JobSpec{
			Task: s.Task, Payload: s.Payload, Queue: s.Queue, RunAt: s.RunAt, MaxAttempts: s.MaxAttempts,
			Key: s.Key, KeyMode: KeyMode(s.KeyMode), Priority: s.Priority, Flags: s.Flags,
		}); err == nil {
			changed, err = spec.encode("JobSpec")
		}
	})
	switch {
	case trouble != nil:
		return store.Spec{}, false, fmt.Errorf("BeforeAdd: %w", trouble)
	case contain.Is(err, ErrAddSkipped):
		return store.Spec{}, false, nil
	case err != nil:
		return store.Spec{}, false, err
	}
	return changed, true, nil
}
