//go:build unix

package taskfile

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/internal/job"
)

// script is an executable with that text for /bin/sh.
func script(t *testing.T, text string) *Executable {
	t.Helper()
	path := filepath.Join(t.TempDir(), "task.sh")
	write(t, path, "#!/bin/sh\n"+text, 0o755)
	return &Executable{Path: path, Task: "reports/daily"}
}

// ran is what a run wrote: the lines of both outputs.
type ran struct{ info, errors []string }

// run runs e; seen gets the lines while it runs, if it is not nil.
func run(ctx context.Context, e *Executable, j *job.Claimed, seen func(string)) (ran, error) {
	var r ran
	err := e.Run(ctx, j, func(line string, isError bool) {
		if isError {
			r.errors = append(r.errors, line)
		} else {
			r.info = append(r.info, line)
		}
		if seen != nil {
			seen(line)
		}
	})
	return r, err
}

func claimed() *job.Claimed {
	return &job.Claimed{Row: job.Row{
		ID: 42, Payload: json.RawMessage(`{"n": 1}`), Priority: -3, Attempts: 2, MaxAttempts: 25,
		RunAt: time.Date(2020, 1, 2, 5, 4, 5, 6_789_000, time.FixedZone("", 2*60*60)),
	}}
}

func TestProcessInheritsWhatIsListed(t *testing.T) {
	for _, name := range []string{"GWORKER_TEST_A", "GWORKER_TEST_AB", "GWORKER_OTHER", "PGPASSWORD", "DATABASE_URL"} {
		t.Setenv(name, "x")
	}
	t.Setenv("GRAPHILE_WORKER_JOB_KEY", "of another job")
	for want, environment := range map[string]Environment{
		"DATABASE_URL GWORKER_OTHER GWORKER_TEST_A GWORKER_TEST_AB PGPASSWORD": {},
		"": {Listed: true}, "GWORKER_TEST_A PGPASSWORD": {Listed: true, Names: []string{"GWORKER_TEST_A", "PGPASSWORD", "NOT_SET"}},
		"GWORKER_TEST_A GWORKER_TEST_AB": {Listed: true, Names: []string{"GWORKER_TEST_A*", "gworker_other"}},
	} {
		e := script(t, `/usr/bin/env | /bin/sed -n 's/^\(GWORKER_TEST_[A-Z]*\|GWORKER_OTHER\|PGPASSWORD\|DATABASE_URL\|GRAPHILE_WORKER_JOB_[KI].*\)=.*/\1/p' | /usr/bin/sort`)
		e.Environment = environment
		r, err := run(t.Context(), e, claimed(), nil)
		if err != nil {
			t.Error(err)
		}
		if got := strings.Replace(strings.Join(r.info, " "), "GRAPHILE_WORKER_JOB_ID", "", 1); strings.TrimSpace(strings.ReplaceAll(got, "  ", " ")) != want {
			t.Errorf("%+v: the process has %q, want %q", environment, got, want)
		}
	}
}

func TestProcessGetsItsJob(t *testing.T) {
	t.Setenv("GRAPHILE_WORKER_JOB_KEY", "of another job")
	t.Setenv("GRAPHILE_WORKER_JOB_ID", "7")
	t.Setenv("GWORKER_TEST_PARENT", "yes")
	e := script(t, `env | grep -E '^(GRAPHILE|GWORKER_TEST)' | sort; echo "args $#"; pwd -P; cat; echo; cat >/dev/null`)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, key := range []string{"", "k=1 ☃"} {
		want := []string{
			"GRAPHILE_WORKER_JOB_ATTEMPTS=2", "GRAPHILE_WORKER_JOB_ID=42", "GRAPHILE_WORKER_JOB_MAX_ATTEMPTS=25",
			"GRAPHILE_WORKER_JOB_PRIORITY=-3", "GRAPHILE_WORKER_JOB_RUN_AT=2020-01-02T03:04:05.006Z",
			"GRAPHILE_WORKER_PAYLOAD_FORMAT=json", "GRAPHILE_WORKER_TASK_IDENTIFIER=reports/daily",
			"GWORKER_TEST_PARENT=yes", "args 0", dir, `{"payload":{"n": 1}}`,
		}
		if key != "" {
			want = slices.Insert(want, 2, "GRAPHILE_WORKER_JOB_KEY="+key)
		}
		j := claimed()
		j.Key = key
		r, err := run(t.Context(), e, j, nil)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, r.info); diff != "" {
			t.Errorf("key %q: %s", key, diff)
		}
	}
}

func TestProcessOutcome(t *testing.T) {
	for name, c := range map[string]struct{ text, err string }{
		"success":  {"exit 0", ""},
		"1":        {"exit 1", "Process exited with code 1"},
		"255":      {"exit 255", "Process exited with code 255"},
		"term":     {"kill -TERM $$", "Process was ended by signal terminated"},
		"kill":     {"kill -KILL $$", "Process was ended by signal killed"},
		"unread":   {"exec <&-; exit 0", ""},
		"quiet":    {"exec >&- 2>&-; exit 3", "Process exited with code 3"},
		"its kids": {"sh -c 'kill -KILL $$'; exit 0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t.Context(), script(t, c.text), claimed(), nil)
			if text := errorText(err); text != c.err {
				t.Errorf("error %q, want %q", text, c.err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestProcessOutput(t *testing.T) {
	r, err := run(t.Context(), script(t, `echo one; echo two >&2; printf 'three\r\n\nfour'; printf 'five' >&2`), claimed(), nil)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(ran{[]string{"one", "three", "", "four"}, []string{"two", "five"}}, r, cmp.AllowUnexported(ran{})); diff != "" {
		t.Error(diff)
	}
}

func TestProcessWritesALongLine(t *testing.T) {
	const size = 3_000_001
	r, err := run(t.Context(), script(t, `head -c `+strconv.Itoa(size)+` /dev/zero | tr '\0' x`), claimed(), nil)
	if err != nil {
		t.Error(err)
	}
	if line := strings.Join(r.info, ""); len(line) != size || strings.Trim(line, "x") != "" || len(r.info) != size/maxLine+1 {
		t.Errorf("%d bytes in %d pieces", len(line), len(r.info))
	}
}

func TestProcessGetsALargePayload(t *testing.T) {
	j := claimed()
	j.Payload = json.RawMessage(`"` + strings.Repeat("x", 10<<20) + `"`)
	r, err := run(t.Context(), script(t, "wc -c"), j, nil)
	if want := strconv.Itoa(len(j.Payload) + len(`{"payload":}`)); err != nil || len(r.info) != 1 || strings.TrimSpace(r.info[0]) != want {
		t.Errorf("%v, %v, want %s bytes", r, err, want)
	}
	for _, text := range []string{"exit 0", "head -c 100 >/dev/null", "exec <&-; exit 0"} {
		if _, err := run(t.Context(), script(t, text), j, nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestScriptWithoutInterpreter: Node's spawn gives it to the shell.
func TestScriptWithoutInterpreter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plain")
	write(t, path, "echo it is $GRAPHILE_WORKER_TASK_IDENTIFIER; exit 3\n", 0o755)
	r, err := run(t.Context(), &Executable{Path: path, Task: "a task"}, claimed(), nil)
	if errorText(err) != "Process exited with code 3" || len(r.info) != 1 || r.info[0] != "it is a task" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestProcessDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "strange"), "#!/no/such/interpreter\n", 0o755)
	write(t, filepath.Join(dir, "forbidden"), "#!/bin/sh\n", 0o644)
	for name, says := range map[string]string{
		"strange": "interpreter", "forbidden": "may not execute", "gone": "the file is gone",
	} {
		path := filepath.Join(dir, name)
		_, err := run(t.Context(), &Executable{Path: path}, claimed(), nil)
		if text := errorText(err); !strings.Contains(text, says) || strings.Count(text, path) != 1 {
			t.Errorf("%s: %q", name, text)
		}
	}
}
