package history

import (
	"context"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

// Upkeep forgets all unique jobs whose time is over, in batches, and passes over those that a
// session is just adding anew.
func TestUpkeepForgetsUniqueJobs(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t, testdb.Migrated(t))
	testdb.Exec(t, pool, `insert into graphile_worker._gworker_unique (key, task, identifier, added_at, expires_at, job_id)
		select 'key:' || i, 'old', 'old', now() - interval '2 days', now() - interval '1 s', i from generate_series(1, $1::int) i
		union all select 'key:' || i, 'new', 'new', now(), now() + interval '1 minute', i from generate_series(1, 5) i`, 2*sweepBatch+7)
	stream := &eventstream.Stream{}
	k := &Keeper{
		Recorder: NewRecorder(Config{WorkerID: "w", Events: stream}), Queries: statement.NewSet(statement.Options{}).On(pool),
		Retention: Retention{Events: 24 * time.Hour, Minutes: 24 * time.Hour, Hours: 24 * time.Hour},
	}
	left := func() (old, live int) {
		testdb.Scan(t, pool, "select count(*) filter (where task = 'old'), count(*) filter (where task = 'new') from graphile_worker._gworker_unique", nil, &old, &live)
		return old, live
	}

	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "select from graphile_worker._gworker_unique where key = 'key:3' for update"); err != nil {
		t.Fatal(err)
	}
	k.upkeep(t.Context())
	if old, live := left(); old != 1 || live != 5 || k.unkept {
		t.Errorf("%d old ones and %d live ones are left; a problem: %t", old, live, k.unkept)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.upkeep(t.Context())
	if old, live := left(); old != 0 || live != 5 || k.unkept {
		t.Errorf("%d old ones and %d live ones are left; a problem: %t", old, live, k.unkept)
	}

	// A batch is what one statement takes at most.
	swept, err := k.Queries.SweepUnique(t.Context(), 3)
	if err != nil || swept != 0 {
		t.Errorf("%d, %v", swept, err)
	}
	testdb.Exec(t, pool, "update graphile_worker._gworker_unique set expires_at = now()")
	if swept, err = k.Queries.SweepUnique(t.Context(), 3); err != nil || swept != 3 {
		t.Errorf("%d, %v", swept, err)
	}

	// What cannot be done is told.
	testdb.Exec(t, pool, "drop table graphile_worker._gworker_unique")
	k.upkeep(t.Context())
	if !k.unkept {
		t.Error("nothing was told")
	}
}
