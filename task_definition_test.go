package gworker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/gworkertest"
	"github.com/gworker/gworker/internal/testworker"
)

// An order is the payload of the tests' definitions.
type order struct {
	ID      int    `json:"id"`
	Account string `json:"account"`
}

// ship has a default of every kind.
func ship() gworker.TaskDefinition[order] {
	return gworker.TaskDefinition[order]{
		Name: "ship", MaxAttempts: 5, Priority: 7, KeyMode: gworker.KeyPreserveRunAt, Flags: []string{"warehouse"},
		QueueFunc: func(o order) string { return "account " + o.Account },
		KeyFunc: func(o order) string {
			if o.ID == 0 {
				return ""
			}
			return "ship " + strings.Repeat("I", o.ID)
		},
	}
}

type stored struct {
	queue, key            string
	maxAttempts, priority int
	flags                 []string
}

func storedOf(row *gworker.JobRow) stored {
	return stored{queue: row.Queue, key: row.Key, maxAttempts: row.MaxAttempts, priority: row.Priority, flags: row.Flags}
}

func wantStored(t *testing.T, row *gworker.JobRow, want stored) {
	t.Helper()
	got := storedOf(row)
	if got.queue != want.queue || got.key != want.key || got.maxAttempts != want.maxAttempts ||
		got.priority != want.priority || !slices.Equal(got.flags, want.flags) {
		t.Errorf("job %d of %q is stored with %+v, want %+v", row.ID, row.Task, got, want)
	}
}

// Whatever adds a job, its row has the definition's defaults, and the worker runs it by
// the same definition.
func TestDefinitionsDefaultsAreStored(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	definition := ship()
	want := func(account, key string) stored {
		return stored{queue: "account " + account, key: key, maxAttempts: 5, priority: 7, flags: []string{"warehouse"}}
	}

	wantStored(t, add(t, client, definition.Spec(order{ID: 1, Account: "a"})), want("a", "ship I"))
	wantStored(t, add(t, client, definition.Spec(order{Account: "a"})), want("a", "")) // KeyFunc wants none
	both, err := client.AddJobs(t.Context(), []gworker.JobSpec{
		definition.Spec(order{ID: 2, Account: "b"}), definition.Spec(order{ID: 3, Account: "c"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, both[0], want("b", "ship II"))
	wantStored(t, both[1], want("c", "ship III"))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, add(t, client.WithTx(tx), definition.Spec(order{ID: 4, Account: "d"})), want("d", "ship IIII"))
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	sqlTx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, add(t, client.WithSQLTx(sqlTx), definition.Spec(order{ID: 5, Account: "e"})), want("e", "ship IIIII"))
	if err := sqlTx.Commit(); err != nil {
		t.Fatal(err)
	}
	// A test can ask for it by the same spec.
	gworkertest.JobsIn(pool).Require(t, definition.Spec(order{ID: 5, Account: "e"}))

	var ran []order
	next := gworker.TaskDefinition[string]{Name: "next", Queue: "next"}
	runOnce(t, gworker.Config{Pool: pool, Concurrency: 1, Tasks: []gworker.Task{
		definition.Task(func(ctx context.Context, job *gworker.Job[order]) error {
			ran = append(ran, job.Payload)
			if job.Payload.ID == 1 {
				_, err := job.Client().AddJob(ctx, next.Spec("from a handler"))
				return err
			}
			return nil
		}),
	}})
	if len(ran) != 6 || ran[0].Account != "a" {
		t.Errorf("ran %+v", ran)
	}
	wantStored(t, gworkertest.JobsIn(pool).Require(t, next.Spec("from a handler")), stored{queue: "next", maxAttempts: 25})
}

// The zero values of a definition, and of a spec that is changed, are the queue's
// defaults.
func TestSpecWinsOverItsDefinition(t *testing.T) {
	t.Parallel()
	client := newClient(t, migrated(t))
	bare := gworker.TaskDefinition[order]{Name: "bare"}
	wantStored(t, add(t, client, bare.Spec(order{})), stored{maxAttempts: 25})

	spec := ship().Spec(order{ID: 1, Account: "a"})
	spec.Queue, spec.Key, spec.Priority, spec.MaxAttempts, spec.Flags = "", "", 0, 0, nil
	wantStored(t, add(t, client, spec), stored{maxAttempts: 25})

	spec = ship().Spec(order{ID: 1, Account: "a"})
	spec.Queue, spec.Key, spec.Priority, spec.MaxAttempts, spec.Flags[0] = "q", "k", -1, 1, "f"
	wantStored(t, add(t, client, spec), stored{queue: "q", key: "k", priority: -1, maxAttempts: 1, flags: []string{"f"}})

	// No spec is another's: not even by its slice of flags.
	shared := ship()
	first := shared.Spec(order{})
	first.Flags[0] = "changed"
	if second := shared.Spec(order{}); second.Flags[0] != "warehouse" {
		t.Errorf("a spec has the flags %q, which another was given", second.Flags)
	}
}

func TestKeyOfADefinition(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	due := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	later := ship().Spec(order{ID: 1, Account: "a"})
	later.RunAt = due
	first := add(t, client, later)
	second := add(t, client, ship().Spec(order{ID: 1, Account: "b"}))
	if second.ID != first.ID || !second.RunAt.Equal(due) || second.Queue != "account b" {
		t.Errorf("the second job with the key is %+v: want the first, for %s, with the new payload", second, due)
	}

	once := ship()
	once.KeyMode = gworker.KeyUnsafeDedupe
	if kept := add(t, client, once.Spec(order{ID: 1, Account: "c"})); kept.ID != first.ID || kept.Queue != "account b" {
		t.Errorf("unsafe_dedupe has changed the job: %+v", kept)
	}
}

// One call adds jobs of several definitions. The key mode of one without a key says
// nothing.
func TestKeyModesOfOneCall(t *testing.T) {
	t.Parallel()
	client := newClient(t, migrated(t))
	once := gworker.TaskDefinition[order]{Name: "once", KeyMode: gworker.KeyUnsafeDedupe}
	plain := gworker.TaskDefinition[order]{Name: "plain"}
	due := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	later := ship().Spec(order{ID: 1})
	later.RunAt = due
	for range 2 {
		rows, err := client.AddJobs(t.Context(), []gworker.JobSpec{plain.Spec(order{}), once.Spec(order{}), later})
		if err != nil || len(rows) != 3 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		if !rows[2].RunAt.Equal(due) {
			t.Errorf("the job is for %s: want it as it was, for %s", rows[2].RunAt, due)
		}
		later.RunAt = time.Time{}
	}
	replaced := ship()
	replaced.KeyMode = gworker.KeyReplace
	_, err := client.AddJobs(t.Context(), []gworker.JobSpec{plain.Spec(order{}), ship().Spec(order{ID: 1}), replaced.Spec(order{ID: 2})})
	testworker.WantFieldError(t, err, "specs[2].KeyMode", "specs[1].KeyMode is preserve_run_at: one call takes one key mode")
}

func TestUnusableDefinitionsAreRefused(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	asked := 0
	client := interceptedClient(t, pool, func(context.Context, *gworker.JobSpec) error { asked++; return nil })
	worker, err := gworker.NewWorker(gworker.Config{Pool: pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	for _, c := range []struct {
		change func(*gworker.TaskDefinition[order])
		field  string
		says   string
	}{
		{func(d *gworker.TaskDefinition[order]) { d.Name = "" }, "TaskDefinition.Name", "is empty"},
		{func(d *gworker.TaskDefinition[order]) { d.Name = strings.Repeat("n", 129) }, "TaskDefinition.Name", "129 characters: the limit is 128"},
		{func(d *gworker.TaskDefinition[order]) { d.Name = "a\nb\x00" }, "TaskDefinition.Name", "NUL"},
		{func(d *gworker.TaskDefinition[order]) { d.Name = "a\xff" }, "TaskDefinition.Name", "UTF-8"},
		{func(d *gworker.TaskDefinition[order]) { d.MaxAttempts = -1 }, "TaskDefinition.MaxAttempts", "1 to 32767"},
		{func(d *gworker.TaskDefinition[order]) { d.MaxAttempts = 32768 }, "TaskDefinition.MaxAttempts", "1 to 32767"},
		{func(d *gworker.TaskDefinition[order]) { d.Priority = -32769 }, "TaskDefinition.Priority", "-32768 to 32767"},
		{func(d *gworker.TaskDefinition[order]) { d.KeyMode = "once" }, "TaskDefinition.KeyMode", `is "once": it can be replace`},
		{func(d *gworker.TaskDefinition[order]) { d.Flags = []string{"ok", "\x00"} }, "TaskDefinition.Flags[1]", "NUL"},
		{func(d *gworker.TaskDefinition[order]) { d.Flags = []string{"gworker:cancel"} }, "TaskDefinition.Flags[0]", "cancelled"},
		{func(d *gworker.TaskDefinition[order]) { d.QueueFunc, d.Queue = nil, strings.Repeat("q", 129) }, "TaskDefinition.Queue", "129"},
		{func(d *gworker.TaskDefinition[order]) { d.Queue = "all" }, "TaskDefinition.QueueFunc", `together with Queue "all"`},
	} {
		d := ship()
		c.change(&d)
		spec := d.Spec(order{ID: 1})
		spec.MaxAttempts, spec.Priority, spec.Queue = 1, 1, "q" // the definition stays unusable
		_, one := client.AddJob(t.Context(), spec)
		_, all := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "fine"}, spec})
		_, inWorker := gworker.NewWorker(gworker.Config{Pool: pool, Tasks: []gworker.Task{
			d.Task(func(context.Context, *gworker.Job[order]) error { return nil }),
		}})
		item := d.CronItem("* * * * *", order{ID: 1})
		_, inCron := gworker.NewWorker(gworker.Config{Pool: pool, Cron: gworker.CronConfig{Items: []gworker.CronItem{item}}})
		for what, err := range map[string]error{
			"AddJob": one, "AddJobs": all, "Validate": spec.Validate(), "NewWorker": inWorker,
			"Config.Cron": inCron, "AddCronItem": worker.AddCronItem(item),
		} {
			testworker.WantFieldError(t, err, c.field, c.says)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %q has more than one line", what, err)
			}
			if named := d.Name == "ship"; err != nil && named && what != "Validate" && !strings.Contains(err.Error(), `task "ship"`) {
				t.Errorf("%s: %q does not name the task", what, err)
			}
		}
	}
	if n := jobCount(t, pool); n != 0 || asked != 0 || len(worker.CronItems()) != 0 {
		t.Errorf("%d jobs were added, interceptors were asked %d times, %d cron items", n, asked, len(worker.CronItems()))
	}
}

// A failing function of a definition, or a payload that cannot be encoded, is an error
// that names the task, and nothing is added.
func TestFailingFunctionsOfADefinition(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	asked := 0
	client := interceptedClient(t, pool, func(_ context.Context, s *gworker.JobSpec) error { asked++; s.Key = "k"; return nil })
	keyed := gworker.TaskDefinition[*order]{Name: "keyed", KeyFunc: func(o *order) string { return o.Account }}
	queued := gworker.TaskDefinition[order]{Name: "queued", QueueFunc: func(order) string { panic("no\nqueue") }}
	odd := gworker.TaskDefinition[order]{Name: "odd", KeyFunc: func(order) string { panic(panicsWithItself{}) }}
	long := gworker.TaskDefinition[order]{Name: "long", QueueFunc: func(order) string { return strings.Repeat("q", 129) }}
	encoding := gworker.TaskDefinition[panicsInJSON]{Name: "encoding"}
	functional := gworker.TaskDefinition[func()]{Name: "functional"}
	for _, c := range []struct {
		spec   gworker.JobSpec
		says   string
		panics bool
	}{
		{keyed.Spec(nil), "TaskDefinition.KeyFunc: panic: runtime error", true},
		{queued.Spec(order{}), "TaskDefinition.QueueFunc: panic: no", true},
		{odd.Spec(order{}), "TaskDefinition.KeyFunc: panic: ", true},
		{long.Spec(order{}), "Queue has 129 characters", false},
		{encoding.Spec(panicsInJSON{}), "Payload cannot be encoded as JSON", false},
		{functional.Spec(func() {}), "Payload cannot be encoded as JSON", false},
	} {
		asked = 0
		_, one := client.AddJob(t.Context(), c.spec)
		_, all := client.AddJobs(t.Context(), []gworker.JobSpec{{Task: "fine"}, c.spec})
		for _, err := range []error{one, all} {
			var recovered *gworker.PanicError
			switch {
			case err == nil:
				t.Errorf("a job of %q was added", c.spec.Task)
			case !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), `task "`+c.spec.Task+`"`):
				t.Errorf("the error is %q: want the task and %q", err, c.says)
			case errors.As(err, &recovered) != c.panics || c.panics && recovered.Stack == "":
				t.Errorf("%q: a *PanicError with a stack is in it: %t, want %t", err, recovered != nil, c.panics)
			}
		}
		if c.panics && asked != 0 {
			t.Errorf("%s: interceptors were asked %d times", c.spec.Task, asked)
		}
	}
	if n := jobCount(t, pool); n != 0 {
		t.Errorf("%d jobs were added", n)
	}
}

// panicsWithItself cannot even be said to have panicked.
type panicsWithItself struct{}

func (p panicsWithItself) Error() string { panic(p) }

type panicsInJSON struct{}

func (panicsInJSON) MarshalJSON() ([]byte, error) { panic("no JSON") }

func TestBatchTaskOfADefinition(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	notify := gworker.TaskDefinition[[]order]{
		Name: "notify", MaxAttempts: 3, KeyFunc: func(o []order) string { return "notify " + o[0].Account },
	}
	client := newClient(t, pool)
	add(t, client, notify.Spec([]order{{ID: 1, Account: "a"}}))
	wantStored(t, add(t, client, notify.Spec([]order{{ID: 2, Account: "a"}})), stored{key: "notify a", maxAttempts: 3})
	var got []order
	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewBatchTaskOf(notify, func(_ context.Context, job *gworker.BatchJob[order]) ([]error, error) {
			got = job.Payload
			return nil, nil
		}),
	}})
	if len(got) != 2 || got[1].ID != 2 {
		t.Errorf("the handler got %+v", got)
	}
	notify.MaxAttempts = -1
	_, err := gworker.NewWorker(gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewBatchTaskOf(notify, func(context.Context, *gworker.BatchJob[order]) ([]error, error) { return nil, nil }),
	}})
	testworker.WantFieldError(t, err, "TaskDefinition.MaxAttempts", "-1")
}

// Jobs of cron have the definition's defaults, flags included, whether or not
// interceptors are asked about them.
func TestCronItemOfADefinition(t *testing.T) {
	t.Parallel()
	for name, before := range map[string][]interceptor{
		"alone":             nil,
		"with interceptors": {func(context.Context, *gworker.JobSpec) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			daily := gworker.TaskDefinition[report]{
				Name: "daily", MaxAttempts: 2, Priority: 3, Flags: []string{"night"},
				QueueFunc: func(r report) string { return "reports of " + r.Region },
				KeyFunc:   func(r report) string { return "daily " + r.Region },
			}
			item := daily.CronItem("* * * * *", report{Region: "eu"})
			item.Fill = time.Minute
			item.Priority = 4
			config := gworker.Config{Pool: migrated(t), BeforeAdd: before, Cron: gworker.CronConfig{Items: []gworker.CronItem{item}}}
			remember(t, config, time.Now().Add(-time.Hour), "daily")
			w := start(t, config)
			waitFor[event.CronBackfilled](t, w.Events, nil)
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
			row := gworkertest.JobsIn(config.Pool).Require(t, gworker.JobSpec{Task: "daily"})
			wantStored(t, row, stored{queue: "reports of eu", key: "daily eu", maxAttempts: 2, priority: 4, flags: []string{"night"}})
			if listed := w.CronItems(); len(listed) != 1 || !slices.Equal(listed[0].Flags, []string{"night"}) {
				t.Errorf("listed: %+v", listed)
			}
		})
	}
}
