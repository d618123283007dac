package gworker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
)

// Keys tell jobs apart, and so do tasks unless the scope is all of them.
func TestUniqueKeysAndScopes(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	spec := func(task, key string, scope gworker.UniqueScope, payload any) gworker.JobSpec {
		return gworker.JobSpec{Task: task, Payload: payload, UniqueFor: time.Hour, UniqueKey: key, UniqueScope: scope}
	}
	a := add(t, client, spec("a", "", "", 1))
	var stored string // no key that is given is one of a payload
	scan(t, pool, "select key from graphile_worker._gworker_unique", nil, &stored)
	for _, key := range []string{stored, strings.TrimPrefix(stored, "payload:"), "1"} {
		wantAdded(t, add(t, client, spec("a", key, "", 1)))
	}
	wantDuplicate(t, add(t, client, spec("a", "", gworker.UniqueInTask, 1)), a, gworker.DuplicateWaiting)
	wantAdded(t, add(t, client, spec("b", "", "", 1)))
	wantAdded(t, add(t, client, spec("a", "k", "", 1)))
	everywhere := add(t, client, spec("a", "k", gworker.UniqueInAll, 1))
	wantAdded(t, everywhere)
	wantDuplicate(t, add(t, client, spec("b", "k", gworker.UniqueInAll, 2)), everywhere, gworker.DuplicateWaiting)
	wantAdded(t, add(t, client, spec("b", "k", "", 2)))
	wantAdded(t, add(t, client, spec("c", "", gworker.UniqueInAll, 1)))
	if row := add(t, client, spec("d", "", gworker.UniqueInAll, 1)); row.Added() || row.Task != "c" {
		t.Errorf("%+v", row)
	}
}

// Large calls keep the order of their specs, with and without job keys.
func TestUniqueManyAtOnce(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	var specs []gworker.JobSpec
	for i := range 600 {
		spec := gworker.JobSpec{Task: fmt.Sprint("t", i%7), Payload: i, Queue: fmt.Sprint("q", i%3)}
		if i%2 == 0 {
			spec.Key = fmt.Sprint("k", 1000-i)
		}
		if i%3 == 0 {
			spec.UniqueFor, spec.UniqueKey = time.Hour, fmt.Sprint("u", i/6) // every other of them again
			spec.UniqueScope = gworker.UniqueInAll
		}
		specs = append(specs, spec)
	}
	for round := range 2 {
		rows, err := client.AddJobs(t.Context(), specs)
		if err != nil || len(rows) != len(specs) {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for i, row := range rows {
			of := i
			if i%3 == 0 {
				of = i / 6 * 6
			}
			duplicate := of != i || round > 0 && i%3 == 0
			if string(row.Payload) != fmt.Sprint(of) || row.Task != specs[of].Task || row.Key != specs[of].Key || row.Queue != specs[of].Queue || (row.Duplicate != nil) != duplicate {
				t.Fatalf("round %d, row %d: %+v", round, i, row)
			}
		}
	}
}

// A transaction that sees none of the commits since it began is told to try again.
func TestUniqueInARepeatableRead(t *testing.T) {
	t.Parallel()
	pool := migrated(t)
	client := newClient(t, pool)
	err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "select count(*) from graphile_worker._gworker_unique"); err != nil {
			return err
		}
		add(t, client, hook(`{}`))
		_, err := client.WithTx(tx).AddJob(t.Context(), hook(`{}`))
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "40001") {
		t.Errorf("%v", err)
	}
	if n := jobCount(t, pool); n != 1 {
		t.Errorf("%d jobs", n)
	}
}
