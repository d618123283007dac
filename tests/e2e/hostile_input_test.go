package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

// FuzzJobSpec: whatever stands in a spec's strings is refused with the field's
// name, or stored as it is, by every way of adding.
func FuzzJobSpec(f *testing.F) {
	for _, s := range []string{
		"plain", `'; drop schema graphile_worker cascade; --`, `$1`, `$gw$`, "\\", `\'`, "a\x00b", "\xff\xfe", "{a,\"b\"}", "(a,b)",
		"null", "NULL", "\u2028\ufeff", "'||pg_sleep(10)||'", `"`, "%s%d", strings.Repeat("x", 129), strings.Repeat("ü", 512),
	} {
		f.Add(s, s, s, s)
	}
	pool := testdb.Pool(f, testdb.Migrated(f))
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, task, queue, key, text string) {
		spec := gworker.JobSpec{Task: task, Queue: queue, Key: key, Payload: map[string]string{text: text}}
		if text != "" {
			spec.Flags = []string{text}
		}
		ctx := context.Background()
		for name, add := range map[string]func() (*gworker.JobRow, error){
			"AddJob": func() (*gworker.JobRow, error) { return client.AddJob(ctx, spec) },
			"AddJobs": func() (*gworker.JobRow, error) {
				rows, err := client.AddJobs(ctx, []gworker.JobSpec{spec})
				if err != nil {
					return nil, err
				}
				return rows[0], nil
			},
		} {
			row, err := add()
			var field *gworker.FieldError
			if errors.As(err, &field) {
				continue
			}
			if err != nil {
				t.Errorf("%s of %+v: %v", name, spec, err)
				continue
			}
			want, err := json.Marshal(spec.Payload)
			if err != nil {
				t.Fatal(err)
			}
			got := gworker.JobSpec{Task: row.Task, Queue: row.Queue, Key: row.Key, Flags: row.Flags}
			spec := spec
			spec.Payload = nil
			if diff := cmp.Diff(spec, got, cmpopts.IgnoreUnexported(gworker.JobSpec{})); diff != "" || string(row.Payload) != string(want) {
				t.Errorf("%s stored payload %s and (-want +got)\n%s", name, row.Payload, diff)
			}
		}
		if key != "" {
			_, err := client.RemoveJob(ctx, key)
			var field *gworker.FieldError
			if err != nil && !errors.Is(err, gworker.ErrJobNotFound) && !errors.As(err, &field) {
				t.Errorf("RemoveJob(%q): %v", key, err)
			}
		}
	})
}

// FuzzPayload: whatever JSON a job has, typed handlers get it or the job fails
// on its own, and raw ones get it as it stands.
func FuzzPayload(f *testing.F) {
	for _, s := range []string{
		"{}", "null", "0", `""`, `"\u0000"`, `"\ud800"`, "[1,[2,[3]]]", `{"name":1}`, `{"name":"x","name":"y"}`, "1e999", "-0", "tru",
		strings.Repeat("[", 5000) + strings.Repeat("]", 5000), strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
		`{"` + strings.Repeat("k", 1<<16) + `":1}`,
	} {
		f.Add(s)
	}
	pool := testdb.Pool(f, testdb.Migrated(f))
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		ctx := context.Background()
		if _, err := client.AddJob(ctx, gworker.JobSpec{Task: "raw", Payload: json.RawMessage(payload)}); err != nil {
			var field *gworker.FieldError
			if !errors.As(err, &field) && !strings.Contains(err.Error(), "SQLSTATE 54001") { // too deep for the server
				t.Errorf("%.100q: %v", payload, err)
			}
			return
		}
		if _, err := client.AddJob(ctx, gworker.JobSpec{Task: "typed", Payload: json.RawMessage(payload)}); err != nil {
			t.Fatal(err)
		}
		ran := 0
		worker, err := gworker.NewWorker(gworker.Config{
			Pool: pool, Concurrency: 1, Recovery: gworker.RecoveryConfig{Disabled: true}, Tasks: []gworker.Task{
				gworker.NewRawTask("raw", func(_ context.Context, job *gworker.RawJob) error {
					ran++
					if want := payload; string(job.Payload) != want && !(want == "" && string(job.Payload) == "{}") {
						t.Errorf("the handler got %.100q of %.100q", job.Payload, want)
					}
					return nil
				}),
				gworker.NewTask("typed", func(context.Context, *gworker.Job[struct{ Name string }]) error { return nil }),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := worker.RunOnce(ctx); err != nil || ran != 1 {
			t.Errorf("%.100q: ran %d times, %v", payload, ran, err)
		}
		if _, err := pool.Exec(ctx, "delete from graphile_worker._private_jobs"); err != nil {
			t.Fatal(err)
		}
	})
}

// A handler that leaves a goroutine behind, and one that uses its job later,
// harm themselves only.
func TestLeakyHandlers(t *testing.T) {
	pool := migrated(t)
	client := newClient(t, pool)
	for range 20 {
		add(t, client, gworker.JobSpec{Task: "leaks"})
	}
	release, late := make(chan struct{}), make(chan error, 20)
	e := runOnce(t, gworker.Config{Pool: pool, Concurrency: 4, Tasks: []gworker.Task{
		gworker.NewRawTask("leaks", func(ctx context.Context, job *gworker.RawJob) error {
			go func() {
				<-release
				job.Logger().Info("late")
				late <- ctx.Err()
			}()
			return nil
		}),
	}})
	if n := count[event.JobCompleted](e); n != 20 {
		t.Errorf("%d jobs completed", n)
	}
	close(release)
	for range 20 {
		if err := <-late; !errors.Is(err, context.Canceled) {
			t.Errorf("the context goes on after its run: %v", err)
		}
	}
}

func TestBigPayloadRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	pool := migrated(t)
	big := strings.Repeat("0123456789", 1<<20)
	add(t, newClient(t, pool), gworker.JobSpec{Task: "x", Payload: big})
	got := 0
	runOnce(t, gworker.Config{Pool: pool, Tasks: []gworker.Task{
		gworker.NewTask("x", func(_ context.Context, job *gworker.Job[string]) error { got = len(job.Payload); return nil }),
	}})
	if got != len(big) {
		t.Errorf("handler got %d bytes, want %d", got, len(big))
	}
}
