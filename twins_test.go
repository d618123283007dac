package gworker

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/recovery"
)

// What users see is declared here, and what internal packages work with is declared there.
// A conversion between the two is of the same underlying type, which the compiler checks.
// Where the types in them differ, fields are copied one by one: this test holds the fields,
// their order and their names in JSON equal, and the constants.
func TestPublicTypesAreLikeThoseInside(t *testing.T) {
	for _, twins := range [][2]any{
		{JobInfo{}, admin.Job{}},
		{ChangedJobs{}, admin.Changed{}},
		{UntouchedJob{}, admin.Untouched{}},
		{JobPage{}, admin.Page{}},
		{WorkerLocks{}, admin.Locks{}},
		{Stats{}, admin.Stats{}},
		{TaskStats{}, admin.TaskStats{}},
		{QueueStats{}, admin.QueueStats{}},
		{QueueInfo{}, admin.Queue{}},
		{QueuePage{}, admin.QueuePage{}},
		{CancelResult{}, cancel.Result{}},
		{Report{}, doctor.Report{}},
		{Finding{}, doctor.Finding{}},
		{RecoveryDecision{}, recovery.Decision{}},
		{SweepResult{}, recovery.SweepResult{}},
		{SweptWorker{}, recovery.SweptWorker{}},
		{SweptJob{}, recovery.SweptJob{}},
		{ListenerBatch{}, listener.Batch{}},
		{ListenerState{}, listener.State{}},
	} {
		public, inside := reflect.TypeOf(twins[0]), reflect.TypeOf(twins[1])
		if public.NumField() != inside.NumField() {
			t.Errorf("%s has %d fields, %s has %d", public, public.NumField(), inside, inside.NumField())
			continue
		}
		for i := range public.NumField() {
			p, in := public.Field(i), inside.Field(i)
			if p.Anonymous != in.Anonymous || !p.Anonymous && p.Name != in.Name || p.Tag != in.Tag {
				t.Errorf("%s.%s `%s` is %s.%s `%s` inside", public, p.Name, p.Tag, inside, in.Name, in.Tag)
			}
		}
	}
	for inside, public := range map[any]any{
		job.StateScheduled: job.State(StateScheduled), job.StateReady: job.State(StateReady),
		job.StateBlocked: job.State(StateBlocked), job.StateRunning: job.State(StateRunning),
		job.StateRetrying: job.State(StateRetrying), job.StateFailed: job.State(StateFailed),
		cancel.Requested: cancel.State(CancelRequested), cancel.KeptFromRetrying: cancel.State(CancelKeptFromRetrying),
		cancel.Failed: cancel.State(CancelFailed), cancel.AlreadyFailed: cancel.State(CancelAlreadyFailed),
		cancel.NotFound: cancel.State(CancelNotFound),
		admin.Locked:    admin.Reason(UntouchedLocked), admin.NotFound: admin.Reason(UntouchedNotFound),
		admin.GCTaskIdentifiers: string(GCTaskIdentifiers), admin.GCJobQueues: string(GCJobQueues),
		admin.DeletePermafailedJobs: string(DeletePermafailedJobs),
		doctor.OK:                   doctor.Severity(SeverityOK), doctor.Note: doctor.Severity(SeverityNote),
		doctor.Warning: doctor.Severity(SeverityWarning), doctor.Problem: doctor.Severity(SeverityProblem),
		migrate.Shared: migrate.Lineage(LineageShared), migrate.Node: migrate.Lineage(LineageNode),
		migrate.Rust: migrate.Lineage(LineageRust), migrate.Own: migrate.Lineage(LineageOwn),
		migrate.Unknown:  migrate.Lineage(LineageUnknown),
		recovery.Recover: recovery.Action(RecoverJob), recovery.Reschedule: recovery.Action(RecoverAndReschedule),
		recovery.Fail: recovery.Action(RecoverAsFailed), recovery.Skip: recovery.Action(RecoverLater),
		listener.Connecting: listener.StateKind(ListenerStateConnecting),
		listener.Connected:  listener.StateKind(ListenerStateConnected), listener.Lost: listener.StateKind(ListenerStateLost),
	} {
		if inside != public {
			t.Errorf("%T %v is %v to users", inside, inside, public)
		}
	}
}

// A value from inside of which every field is set comes to users with every field set.
func TestNothingIsLostOnTheWayToUsers(t *testing.T) {
	for _, public := range []any{
		set(jobInfo), set(changedJobs), set(jobPage), set(workerLocks), set(publicStats), set(queuePage), set(cancelResult),
		set(publicReport), set(schemaStatus), set(sweepResult), set(RecoveryDecision.inside), set(listenerBatch), set(listenerState),
	} {
		wantSet(t, reflect.TypeOf(public).String(), reflect.ValueOf(public))
	}
}

// set converts a value of which every field is set.
func set[From, To any](convert func(From) To) To {
	var from From
	fill(reflect.ValueOf(&from).Elem())
	return convert(from)
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(errors.New("set")))
	case reflect.String:
		v.SetString("set")
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.Set(reflect.ValueOf(1).Convert(v.Type()))
	}
}

func wantSet(t *testing.T, name string, v reflect.Value) {
	t.Helper()
	if v.IsZero() {
		t.Errorf("%s is lost", name)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		wantSet(t, name, v.Elem())
	case reflect.Slice:
		wantSet(t, name+"[0]", v.Index(0))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			wantSet(t, name+"."+v.Type().Field(i).Name, v.Field(i))
		}
	default: // it has no parts
	}
}
