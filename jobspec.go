package gworker

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gworker/gworker/gworkertype"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/store"
)

// The limits of the shared schema, in characters where they are lengths.
const (
	maxTaskLength  = 128
	maxQueueLength = 128
	maxKeyLength   = 512
)

// KeyMode says what adding a job does when a job with the same key exists.
type KeyMode string

const (
	// KeyReplace replaces the existing job's task, queue, payload, run time,
	// attempt limit, priority and flags, and starts its attempts anew. If the
	// existing job is running at that moment, a new job is added instead,
	// and the running one is not retried. It is the default.
	KeyReplace KeyMode = "replace"

	// KeyPreserveRunAt is KeyReplace, but a job that has not been tried yet
	// keeps its run time.
	KeyPreserveRunAt KeyMode = "preserve_run_at"

	// KeyUnsafeDedupe leaves an existing job as it is, even if it runs or has
	// permanently failed: nothing new is added then, and the new payload may
	// never be seen by a handler. Hence its name.
	KeyUnsafeDedupe KeyMode = "unsafe_dedupe"
)

// UniqueScope says among which jobs a job is unique.
type UniqueScope string

// The scopes of unique jobs.
const (
	// UniqueInTask: among the jobs of its task. It is the default.
	UniqueInTask UniqueScope = "task"
	// UniqueInAll: among the jobs of all tasks that are added with this scope.
	UniqueInAll UniqueScope = "all"
)

// MaxUniqueFor is the longest JobSpec.UniqueFor: 366 days.
const MaxUniqueFor = 366 * 24 * time.Hour

// minUniqueFor is what the database's clock surely tells from nothing.
const minUniqueFor = time.Millisecond

// Duplicate is [gworkertype.Duplicate]: what JobRow.Duplicate says.
type Duplicate = gworkertype.Duplicate

// DuplicateState is [gworkertype.DuplicateState]: what has become of the job that was added
// before.
type DuplicateState = gworkertype.DuplicateState

// The states of a job that was added before.
const (
	DuplicateWaiting = gworkertype.DuplicateWaiting // it runs later, again if it has failed
	DuplicateRunning = gworkertype.DuplicateRunning // a worker has locked it
	DuplicateFailed  = gworkertype.DuplicateFailed  // it has used up its attempts
	DuplicateGone    = gworkertype.DuplicateGone    // it has completed, or was removed
)

// JobSpec describes a job to add. Only Task is required.
type JobSpec struct {
	// Task is the identifier of the job's task: 1 to 128 characters.
	Task string

	// Payload is the job's argument, any value that encoding/json marshals. A
	// json.RawMessage is stored untouched. nil is stored as {}.
	Payload any

	// Queue names a queue, of up to 128 characters, whose jobs run one after
	// another. "" means no queue: the job runs concurrently with all others.
	Queue string

	// RunAt is the time before which the job shall not run. The zero time means
	// now, by the database's clock, or by Config.Now through the client of a
	// worker that has it.
	RunAt time.Time

	// MaxAttempts is how often the job is tried before it stays failed: 1 to
	// 32767. 0 means the schema's default, 25.
	MaxAttempts int

	// Key identifies the job for later adds and for RemoveJob: up to 512
	// characters. "" means no key.
	Key string

	// KeyMode says what happens when a job with the same Key exists. "" means
	// KeyReplace.
	KeyMode KeyMode

	// Priority orders runnable jobs, lower numbers first: -32768 to 32767. 0 is
	// the schema's default.
	Priority int

	// Flags are names by which workers can be told to leave jobs alone.
	Flags []string

	// UniqueFor keeps the same job from being added again for so long, also if it has
	// completed by then: 1 ms to MaxUniqueFor. 0 means that the job is not unique. What
	// is the same is for UniqueKey and UniqueScope to say. AddJob then returns the row of
	// the first job, with its Duplicate set. The time runs from the first add, whose
	// UniqueFor counts, by the database's clock. See docs/unique.md.
	UniqueFor time.Duration

	// UniqueKey says which jobs are the same: up to 512 characters. "" means those with
	// the same payload, however its JSON is written. It needs UniqueFor, and has nothing
	// to do with Key.
	UniqueKey string

	// UniqueScope says where: "" means UniqueInTask.
	UniqueScope UniqueScope

	// refused is why the TaskDefinition that the spec is from cannot make one.
	refused error
}

// Validate returns the error, mostly a *FieldError, for which AddJob would refuse the spec
// before it asks the database, or nil. It does not call interceptors.
func (s JobSpec) Validate() error {
	_, err := s.encode("JobSpec")
	return err
}

// encode validates a spec; field is how errors name it.
func (s JobSpec) encode(field string) (store.Spec, error) {
	if s.refused != nil {
		return store.Spec{}, s.refused
	}
	if err := s.check(field); err != nil {
		return store.Spec{}, err
	}
	e := store.Spec{
		Task: s.Task, Queue: s.Queue, RunAt: s.RunAt, MaxAttempts: s.MaxAttempts,
		Key: s.Key, KeyMode: string(s.mode()), Priority: s.Priority, Flags: s.Flags,
		UniqueFor: s.UniqueFor, UniqueKey: s.UniqueKey, UniqueScope: string(cmp.Or(s.UniqueScope, UniqueInTask)),
	}
	var err error
	if e.Payload, err = job.EncodePayload(s.Payload); err != nil {
		return store.Spec{}, problem(field+".Payload", "%v", err)
	}
	return e, nil
}

// mode is what happens when a job has the spec's key.
func (s JobSpec) mode() KeyMode {
	if s.KeyMode == "" {
		return KeyReplace
	}
	return s.KeyMode
}

// check validates everything but the payload.
func (s JobSpec) check(field string) error {
	checks := []error{
		checkText(field+".Task", s.Task, maxTaskLength),
		checkText(field+".Queue", s.Queue, maxQueueLength),
		checkText(field+".Key", s.Key, maxKeyLength),
		checkText(field+".UniqueKey", s.UniqueKey, maxKeyLength),
		s.checkUnique(field),
	}
	if s.Task == "" {
		checks = append(checks, problem(field+".Task", "is empty: name the task that shall run the job"))
	}
	for i, flag := range s.Flags {
		checks = append(checks, checkText(fmt.Sprintf("%s.Flags[%d]", field, i), flag, math.MaxInt))
		if flag == job.CancelMark {
			checks = append(checks, problem(fmt.Sprintf("%s.Flags[%d]", field, i), "is %q, by which running jobs are cancelled", flag))
		}
	}
	switch s.mode() {
	case KeyReplace, KeyPreserveRunAt, KeyUnsafeDedupe:
	default:
		checks = append(checks, problem(field+".KeyMode", "is %q: it can be %s, %s or %s",
			s.KeyMode, KeyReplace, KeyPreserveRunAt, KeyUnsafeDedupe))
	}
	if s.MaxAttempts < 0 || s.MaxAttempts > math.MaxInt16 {
		checks = append(checks, problem(field+".MaxAttempts", "is %d: it can be 1 to %d, or 0 for the default",
			s.MaxAttempts, math.MaxInt16))
	}
	if s.Priority < math.MinInt16 || s.Priority > math.MaxInt16 {
		checks = append(checks, problem(field+".Priority", "is %d: it can be %d to %d",
			s.Priority, math.MinInt16, math.MaxInt16))
	}
	if year := s.RunAt.UTC().Year(); !s.RunAt.IsZero() && (year < 1 || year > 9999) {
		checks = append(checks, problem(field+".RunAt", "is in the year %d: it can be in the years 1 to 9999", year))
	}
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s JobSpec) checkUnique(field string) error {
	switch {
	case s.UniqueFor == 0 && s.UniqueKey != "":
		return problem(field+".UniqueKey", "is given without UniqueFor: say for how long the job is unique")
	case s.UniqueFor == 0 && s.UniqueScope != "":
		return problem(field+".UniqueScope", "is given without UniqueFor: say for how long the job is unique")
	case s.UniqueFor != 0 && (s.UniqueFor < minUniqueFor || s.UniqueFor > MaxUniqueFor):
		return problem(field+".UniqueFor", "is %s: it can be %s to %s, or 0 for a job that is not unique", s.UniqueFor, minUniqueFor, MaxUniqueFor)
	case s.UniqueScope != "" && s.UniqueScope != UniqueInTask && s.UniqueScope != UniqueInAll:
		return problem(field+".UniqueScope", "is %q: it can be %s or %s", string(s.UniqueScope), UniqueInTask, UniqueInAll)
	}
	return nil
}

// encodeAll validates the specs of one call, each and together. Errors name them by their
// places.
func encodeAll(specs []JobSpec, places []int) ([]store.Spec, error) {
	all := make([]store.Spec, len(specs))
	keys := make(map[string]int)
	keyed := -1 // the first with a key
	for i, spec := range specs {
		field := fmt.Sprintf("specs[%d]", places[i])
		one, err := spec.encode(field)
		if err != nil && spec.Task != "" {
			return nil, fmt.Errorf("task %.*q: %w", maxTaskLength, spec.Task, err)
		} else if err != nil {
			return nil, err
		}
		all[i] = one
		if one.Key == "" {
			continue // and its key mode says nothing
		}
		if keyed < 0 {
			keyed = i
		}
		switch {
		case KeyMode(one.KeyMode) == KeyUnsafeDedupe:
			return nil, problem(field+".KeyMode", "is %s, which only AddJob takes", KeyUnsafeDedupe)
		case one.KeyMode != all[keyed].KeyMode:
			return nil, problem(field+".KeyMode", "is %s, and specs[%d].KeyMode is %s: one call takes one key mode",
				one.KeyMode, places[keyed], all[keyed].KeyMode)
		}
		if first, ok := keys[one.Key]; ok {
			return nil, problem(field+".Key", "is %q, as specs[%d].Key is: one call takes a key once", one.Key, places[first])
		}
		keys[one.Key] = i
	}
	return all, nil
}

func checkText(field, text string, limit int) error {
	switch {
	case !utf8.ValidString(text):
		return problem(field, "is not valid UTF-8")
	case strings.ContainsRune(text, 0):
		return problem(field, "holds a NUL character, which PostgreSQL does not store")
	}
	if n := utf8.RuneCountInString(text); n > limit {
		return problem(field, "has %d characters: the limit is %d", n, limit)
	}
	return nil
}

// TaskDefinition is what the producers and the handler of a task have in common: its
// identifier, the type of its payload, and the defaults of its jobs. It is declared
// once, in a package that both sides import:
//
//	var SendEmail = gworker.TaskDefinition[Email]{
//		Name:        "send_email",
//		MaxAttempts: 5,
//		KeyFunc:     func(e Email) string { return "welcome " + e.To },
//	}
//
// Producers add what [TaskDefinition.Spec] returns, and a worker runs what
// [TaskDefinition.Task] returns. A payload of another type does not compile.
//
// The zero value of each field but Name is the queue's default. The defaults are
// written to the job's row when it is added, so workers of every runtime go by them.
// Jobs that are added by SQL, or by a JobSpec that names the task itself, have none of
// them. What a worker decides for its task (timeout, backoff, concurrency) is in
// TaskOptions.
//
// A definition that cannot be used is an error of what is made of it: AddJob, AddJobs,
// NewWorker and AddCronItem return a *FieldError that names the field.
//
// Nothing needs a definition: JobSpec.Task and NewTask take any string. It must not be
// changed while others use it.
type TaskDefinition[T any] struct {
	// Name is the task's identifier: 1 to 128 characters.
	Name string

	// Queue names a queue, of up to 128 characters, for all jobs of the task, which
	// then run one after another. "" means no queue.
	Queue string

	// QueueFunc returns the queue of a job with this payload, "" for none; nil means
	// Queue. Only one of the two can be given.
	QueueFunc func(payload T) string

	// MaxAttempts is how often a job is tried before it stays failed: 1 to 32767. 0
	// means the schema's default, 25.
	MaxAttempts int

	// Priority orders runnable jobs, lower numbers first: -32768 to 32767.
	Priority int

	// KeyFunc returns the job key for this payload, of up to 512 characters, "" for
	// none; nil means no key. Keys are shared by all tasks, so put the task's name into
	// it. KeyMode says what happens if a job has the key already.
	KeyFunc func(payload T) string

	// KeyMode is for all jobs of the task that have a key, also one that the spec was
	// given later. "" means KeyReplace.
	KeyMode KeyMode

	// Flags are names by which workers can be told to leave jobs alone.
	Flags []string
}

// Spec returns the spec of a job with this payload. Its fields are filled in from the
// definition, and can be changed before it is added: what they say then counts. A zero
// there means what it means in any JobSpec, so this job has no queue, no key and
// priority 0, whatever the definition says:
//
//	spec := SendEmail.Spec(email)
//	spec.Queue, spec.Key, spec.Priority = "", "", 0
//
// QueueFunc and KeyFunc are called here, on the caller's goroutine. If one panics,
// nothing can be added by the spec: AddJob's error says so and wraps a *PanicError.
func (d TaskDefinition[T]) Spec(payload T) JobSpec {
	spec := JobSpec{
		Task: d.Name, Payload: payload, Queue: d.Queue, MaxAttempts: d.MaxAttempts,
		KeyMode: d.KeyMode, Priority: d.Priority, Flags: slices.Clone(d.Flags),
		refused: d.check(),
	}
	if d.QueueFunc != nil && spec.refused == nil {
		spec.Queue, spec.refused = ask("QueueFunc", d.QueueFunc, payload)
	}
	if d.KeyFunc != nil && spec.refused == nil {
		spec.Key, spec.refused = ask("KeyFunc", d.KeyFunc, payload)
	}
	return spec
}

// Task returns the task with its handler, as NewTask does.
func (d TaskDefinition[T]) Task(handle func(ctx context.Context, job *Job[T]) error) Task {
	return d.bind(NewTask(d.Name, handle))
}

// NewBatchTaskOf is NewBatchTask for a task whose payload is defined as a list.
func NewBatchTaskOf[E any](d TaskDefinition[[]E], handle func(ctx context.Context, job *BatchJob[E]) (failures []error, err error)) Task {
	return d.bind(NewBatchTask(d.Name, handle))
}

// CronItem returns an item that adds jobs with this payload when schedule says so,
// such as "0 4 * * 1-5". As of a spec, its fields are filled in from the definition and
// can be changed. QueueFunc and KeyFunc are called here, once, and not for each job. A
// KeyMode of KeyUnsafeDedupe must be changed, as no cron item can have it.
func (d TaskDefinition[T]) CronItem(schedule string, payload T) CronItem {
	spec := d.Spec(payload)
	return CronItem{
		Schedule: schedule, Task: spec.Task, Payload: spec.Payload, MaxAttempts: spec.MaxAttempts, Queue: spec.Queue,
		Key: spec.Key, KeyMode: spec.KeyMode, Priority: spec.Priority, Flags: spec.Flags, refused: spec.refused,
	}
}

func (d TaskDefinition[T]) bind(t Task) Task {
	t.refused = d.check()
	return t
}

// check returns what makes a definition unusable.
func (d TaskDefinition[T]) check() error {
	if d.Name == "" {
		return problem("TaskDefinition.Name", "is empty: name the task")
	}
	if err := checkText("TaskDefinition.Name", d.Name, maxTaskLength); err != nil {
		return err
	}
	if d.Queue != "" && d.QueueFunc != nil {
		return problem("TaskDefinition.QueueFunc", "is given together with Queue %q: give one of them", d.Queue)
	}
	return JobSpec{
		Task: d.Name, Queue: d.Queue, MaxAttempts: d.MaxAttempts, KeyMode: d.KeyMode, Priority: d.Priority, Flags: d.Flags,
	}.check("TaskDefinition")
}

// ask calls a function of a definition. A panic is an error.
func ask[T any](field string, f func(T) string, payload T) (text string, err error) {
	defer func() {
		if value := recover(); value != nil {
			text, err = "", fmt.Errorf("TaskDefinition.%s: %w", field, contain.Recovered(value))
		}
	}()
	return f(payload), nil
}
