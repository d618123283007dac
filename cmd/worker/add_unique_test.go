package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/testdb"
)

func TestAddUnique(t *testing.T) {
	database := testdb.Migrated(t)
	add := func(args ...string) result {
		return worker(t, `{"event": 7}`, append([]string{"add", "hook", "-", "--unique-for", "1d", "-c", database}, args...)...)
	}
	add().want(t, 0, "added job 1: task hook")
	add().want(t, 0, "nothing added: job 1 of task hook was added at", "and is waiting; unique until")
	add("--unique-key", "\u202ek").want(t, 0, "added job 2")
	add("--unique-key", "\u202ek", "--unique-scope", "task").want(t, 0, "nothing added: job 2")
	add("--unique-key", "\u202ek", "--unique-scope", "all").want(t, 0, "added job 3")

	worker(t, "", "complete", "1", "-c", database).want(t, 0)
	var got struct {
		ID        int64
		Added     bool
		Task      string `json:"task_identifier"`
		Duplicate struct {
			State     string
			AddedAt   time.Time `json:"added_at"`
			ExpiresAt time.Time `json:"expires_at"`
		}
	}
	r := add("--json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.status != 0 {
		t.Fatalf("%d %s%s: %v", r.status, r.out, r.err, err)
	}
	if d := got.Duplicate; got.Added || got.ID != 1 || got.Task != "hook" || d.State != "gone" || d.ExpiresAt.Sub(d.AddedAt) != 24*time.Hour {
		t.Errorf("%s", r.out)
	}

	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--unique-key", "k"}, "give --unique-for"},
		{[]string{"--unique-scope", "all"}, "give --unique-for"},
		{[]string{"--unique-for", "-1h"}, "--unique-for is -1h"},
		{[]string{"--unique-for", "367d"}, "--unique-for is 8808h0m0s"},
		{[]string{"--unique-for", "soon"}, "--unique-for"},
		{[]string{"--unique-for", "1h", "--unique-scope", "queue"}, "--unique-scope"},
		{[]string{"--unique-for", "1h", "--unique-key", ""}, "--unique-key"},
	} {
		worker(t, "", append([]string{"add", "x", "-c", database}, c.args...)...).want(t, 2, c.says)
	}
}

// The command says what to do where the tables are missing.
func TestAddUniqueWithoutTables(t *testing.T) {
	database := testdb.Empty(t)
	worker(t, "", "migrate", "-c", database).want(t, 0)
	testdb.Exec(t, testdb.Pool(t, database), "drop function graphile_worker.gworker_add_unique")
	worker(t, "", "add", "x", "--unique-for", "1h", "-c", database).want(t, 1, "no table for unique jobs", "migrate makes it")
}
