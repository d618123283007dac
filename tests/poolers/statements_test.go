//go:build unix

package poolers_test

import (
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testbouncer"
	"github.com/gworker/gworker/internal/testdb"
)

// TestStatementPoolingIsRefused: a worker and a migration need transactions, and what is
// said is what to do.
func TestStatementPoolingIsRefused(t *testing.T) {
	t.Parallel()
	b := testbouncer.Start(t, testdb.Migrated(t), testbouncer.Options{Statements: true})
	want := func(t *testing.T, text string) {
		t.Helper()
		for _, part := range []string{"pools single statements", "session pooling", "transaction pooling"} {
			if !strings.Contains(text, part) {
				t.Errorf("%q is not said: %s", part, text)
			}
		}
	}
	program := filepath.Join(t.TempDir(), "worker")
	if out, err := osexec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/worker").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "x.sql"), []byte("select 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"run": {"run", "--once", "--tasks", folder}, "migrate": {"migrate", "--schema", "other"},
	} {
		for _, unprepared := range []bool{false, true} {
			if unprepared {
				name, args = name+" unprepared", append([]string{"--no-prepared-statements"}, args...)
			}
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				out, err := osexec.CommandContext(ctx, program, append([]string{"-c", b.URL()}, args...)...).CombinedOutput()
				t.Logf("%s", out)
				if err == nil || ctx.Err() != nil {
					t.Errorf("it ended with %v", err)
				}
				want(t, string(out))
			})
		}
	}
	for name, unprepared := range map[string]bool{"library": false, "library unprepared": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			w, err := gworker.NewWorker(gworker.Config{
				DatabaseURL: b.URL(), NoPreparedStatements: unprepared, ConnectTimeout: patience,
				Tasks: []gworker.Task{gworker.NewRawTask("x", func(context.Context, *gworker.RawJob) error { return nil })},
			})
			if err != nil {
				t.Fatal(err)
			}
			err = w.Run(ctx)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("it ended with %v", err)
			}
			want(t, err.Error())
		})
	}
}
