package interop_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/tests/interop/node"
)

// The listing of a finished schema, and the query that prints one.
const (
	finishedListing = "../../internal/migrate/testdata/revision-20-rust.txt"
	catalogQuery    = "../../internal/migrate/testdata/catalog.sql"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A schema that a real Node worker has made, at each of its ages, ends as ours,
// with its ledger rows and its jobs.
func TestTakeoverOfNodesSchemas(t *testing.T) {
	node.Require(t)
	for _, c := range []struct {
		version  node.Version
		revision int
	}{{node.V01, 1}, {node.V13, 10}, {node.V16, 18}, {node.V18, 20}} {
		t.Run(c.version.String(), func(t *testing.T) {
			t.Parallel()
			db := nodeDatabase(t, c.version)
			if at := value[int](db, "select max(id) from graphile_worker.migrations"); at != c.revision {
				t.Fatalf("%s migrated to revision %d, want %d", c.version, at, c.revision)
			}
			applied := "select id || ' ' || ts from graphile_worker.migrations where id <= $1 order by id"
			before := values[string](db, applied, c.revision)
			db.exec(`select graphile_worker.add_job('greet', '{"n": 1}'::json, 'a queue', '2020-01-02 03:04:05+00', 7)`)
			db.exec(`select graphile_worker.add_job('greet', '{"n": 2}'::json)`)

			db.migrate()
			got := values[string](db, readFile(t, catalogQuery), "graphile_worker")
			want := strings.Split(strings.TrimSpace(readFile(t, finishedListing)), "\n")
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("catalog (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, values[string](db, applied, c.revision)); diff != "" {
				t.Errorf("we changed the rows that %s wrote (-before +after):\n%s", c.version, diff)
			}
			jobs := db.jobs()
			for i := range jobs {
				jobs[i].Queue = nil // revision 1 gives every job a queue
			}
			waiting := func(payload string, max int) storedJob {
				return storedJob{Task: "greet", Payload: payload, MaxAttempts: max, Available: true}
			}
			wantJobs := []storedJob{waiting(`{"n": 1}`, 7), waiting(`{"n": 2}`, 25)}
			for i := range wantJobs {
				wantJobs[i].RunAt = jobs[i].RunAt
			}
			if diff := cmp.Diff(wantJobs, jobs); diff != "" {
				t.Errorf("jobs (-want +got):\n%s", diff)
			}
			if got := jobs[0].RunAt.UTC().Format("2006-01-02T15:04:05"); got != "2020-01-02T03:04:05" {
				t.Errorf("run_at became %s", got)
			}
			gworkerSide.runOnce(t, db.url, "greet")
			db.ranBy(gworkerSide, gworkerSide)
		})
	}
}
