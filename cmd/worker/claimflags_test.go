package main

import (
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestRunTakesTheJobsThatItsFlagsSelect(t *testing.T) {
	database := testdb.Migrated(t)
	dir := tasksDir(t, map[string]string{"x.sql": "insert into seen values (current_setting('gworker.payload'))"})
	pool := testdb.Pool(t, database)
	if _, err := pool.Exec(t.Context(), `create table seen (payload text);
		select graphile_worker.add_job('x', to_json(v), flags => string_to_array(v, ' ')) from unnest(array['eu', 'eu gpu', 'us', 'eu beta']) v`); err != nil {
		t.Fatal(err)
	}
	worker(t, "", "run", "--once", "-c", database, "--tasks", dir, "--accepted-flags", "eu,other",
		"--forbidden-flags", "gpu,beta", "--local-queue-size", "3", "--use-worker-time").want(t, 0)
	var seen string
	if err := pool.QueryRow(t.Context(), "select string_agg(payload, ',') from seen").Scan(&seen); err != nil || seen != `"eu"` {
		t.Errorf("ran %s (%v)", seen, err)
	}
	r := worker(t, "", "run", "-c", database, "--tasks", dir, "--forbidden-flags", "\xff")
	r.want(t, statusUsage, "--forbidden-flags", "UTF-8")
	r = worker(t, "", "run", "-c", database, "--tasks", dir, "--local-queue-size", "-1")
	r.want(t, statusUsage, "--local-queue-size", "-1")
	worker(t, "", "run", "--once", "-c", database, "--tasks", dir, "--local-queue-size", "3", "--hold-time", "0").want(t, 0)
	r = worker(t, "", "run", "-c", database, "--tasks", dir, "--local-queue-size", "3", "--hold-time", "20ms")
	r.want(t, statusUsage, "--hold-time", "20ms", "a local queue")
	if strings.Contains(r.err, "Config.") {
		t.Errorf("speaks of the library: %s", r.err)
	}
}
