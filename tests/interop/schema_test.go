package interop_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker/tests/interop/node"
)

// A revision is a row of the ledger.
type revision struct {
	ID       int
	At       time.Time
	Breaking bool
}

func (db *database) ledger() []revision {
	db.t.Helper()
	return query[revision](db, "select id, ts, breaking from graphile_worker.migrations order by id")
}

func (db *database) addJob(task string) {
	db.t.Helper()
	db.exec("select graphile_worker.add_job($1)", task)
}

// ranBy asserts which workers ran the jobs so far, in that order, and that no
// job is left.
func (db *database) ranBy(want ...side) {
	db.t.Helper()
	var names []string
	for _, s := range want {
		names = append(names, s.String())
	}
	got := values[string](db, "select worker from interop.runs order by id")
	if diff := cmp.Diff(names, got); diff != "" {
		db.t.Errorf("workers of the runs (-want +got):\n%s", diff)
	}
	if left := db.jobs(); len(left) > 0 {
		db.t.Errorf("jobs are left: %+v", left)
	}
}

func TestNodeWorksOnTheSchemaThatWeMigrated(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		db := gworkerDatabase(t)
		before := db.ledger()
		if last := before[len(before)-1].ID; last != 20 {
			t.Fatalf("we migrated up to revision %d, want 20", last)
		}

		db.addJob("greet")
		nodeSide(v).runOnce(t, db.url, "greet")
		db.ranBy(nodeSide(v))
		if diff := cmp.Diff(before, db.ledger()); diff != "" {
			t.Errorf("%s changed our ledger (-before +after):\n%s", v, diff)
		}
	})
}

func TestWeWorkOnTheSchemaThatNodeMigrated(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		db := nodeDatabase(t, v)
		before := db.ledger()

		// Added on the old schema, run on the new one.
		db.addJob("greet")
		gworkerSide.runOnce(t, db.url, "greet")
		db.ranBy(gworkerSide)

		after := db.ledger()
		if last := after[len(after)-1].ID; last != 20 {
			t.Errorf("the ledger ends at %d after our migrations, want 20", last)
		}
		if diff := cmp.Diff(before, after[:len(before)]); diff != "" {
			t.Errorf("we changed the rows that %s wrote (-before +after):\n%s", v, diff)
		}
		for _, object := range []string{"_private_workers", "_private_known_crontabs"} {
			if !value[bool](db, "select to_regclass('graphile_worker.' || $1) is not null", object) {
				t.Errorf("%s is missing after our migrations", object)
			}
		}

		// Whoever was there before goes on.
		db.addJob("greet")
		nodeSide(v).runOnce(t, db.url, "greet")
		db.ranBy(gworkerSide, nodeSide(v))
	})
}

// Node writes its revision 19 as breaking. Older Node versions refuse that
// ledger by themselves, before and after we have worked on it.
func TestNodesOwnRefusalIsLeftToNode(t *testing.T) {
	node.Require(t)
	db := nodeDatabase(t, node.V18)
	db.addJob("greet")
	gworkerSide.runOnce(t, db.url, "greet")
	db.ranBy(gworkerSide)

	refused := db.migrateWithNode(node.V16)
	if err := refused.end(t); err == nil {
		t.Errorf("%s accepted a ledger with Node's breaking revision 19", node.V16)
	}
	if text := refused.stderr.String(); !strings.Contains(text, "breaking migration 19") {
		t.Errorf("%s ended for another reason:\n%s", node.V16, text)
	}
}
