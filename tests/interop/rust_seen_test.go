package interop_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/tests/interop/rust"
)

// What Rust's worker does unlike ours and Node's, as seen. docs/from-rust.md tells
// what to do about each; a test that fails here says that a release has changed.

// A line of a crontab without a payload makes jobs whose payload is null: without
// the _cron member that Node and gworker give them.
func TestRustCronWithoutPayload(t *testing.T) {
	rust.Require(t, rust.V14)
	t.Parallel()
	db := gworkerDatabase(t)
	now := time.Now()
	for _, identifier := range []string{"bare", "full"} {
		db.know(identifier, now.Add(-24*time.Hour), time.Time{})
	}
	j := newJournal()
	p := startRust(t, db.url, j, withTasks("other"), func(o *order) {
		o.Crontab = "* * * * * bare ?fill=5m\n* * * * * full ?fill=5m {}"
	})
	payloads := func(task string) []string {
		return values[string](db, `select distinct regexp_replace(j.payload::text, '\d{4}-\d\d-\d\dT\d\d:\d\d', 'T') from graphile_worker._private_jobs j
			join graphile_worker._private_tasks t on t.id = j.task_id where t.identifier = $1 and j.run_at < now() - interval '1 minute'`, task)
	}
	db.await("cron's jobs", func() bool { return len(payloads("bare")) > 0 && len(payloads("full")) > 0 })
	p.stop(t)
	if got := payloads("bare"); len(got) != 1 || got[0] != "null" {
		t.Errorf("without a payload the jobs have %q, want null", got)
	}
	if got := payloads("full"); len(got) != 1 || !strings.Contains(got[0], `"T:00+00:00"`) {
		t.Errorf("with a payload the jobs have %q, want a time that ends in +00:00", got)
	}
}
