package main

import (
	"encoding/json"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestSweep(t *testing.T) {
	database := testdb.Migrated(t)
	pool := testdb.Pool(t, database)
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	worker(t, "", "sweep", "-c", database).want(t, 0, "no dead workers")
	exec(`select graphile_worker.add_job(name) from unnest(array['dead', 'node']) name`)
	exec(`update graphile_worker._private_jobs j set attempts = 1, locked_at = now() - interval '1 hour',
		locked_by = case t.identifier when 'dead' then 'gworker_dead' else 'pool-1' end
		from graphile_worker._private_tasks t where t.id = j.task_id`)
	exec(`insert into graphile_worker._private_workers (id, last_heartbeat_at) values ('gworker_dead', now() - interval '2 minutes')`)

	worker(t, "", "sweep", "--dry-run", "-c", database).want(t, 0,
		"gworker_dead: not heard of for 2m", "job 1 (dead, attempt 1 of 25) would be given back")
	worker(t, "", "sweep", "--stale-after", "5m", "-c", database).want(t, 0, "no dead workers")
	r := worker(t, "", "sweep", "--json", "-c", database)
	r.want(t, 0, `"task_identifier":"dead"`) // as in all other output
	var printed sweepJSON
	if err := json.Unmarshal([]byte(r.out), &printed); err != nil || len(printed.Workers) != 1 ||
		len(printed.Workers[0].Jobs) != 1 || printed.Workers[0].Jobs[0].Action != "recover" {
		t.Errorf("printed %s, %v", r.out, err)
	}
	worker(t, "", "sweep", "--include-node-locks-older-than", "2h", "-c", database).want(t, 0, "no dead workers")
	worker(t, "", "sweep", "--include-node-locks-older-than", "30m", "-c", database).want(t, 0,
		"pool-1: its oldest lock is 1h0m", "job 2 (node, attempt 1 of 25) given back")
	worker(t, "", "sweep", "--stale-after", "-1s", "-c", database).want(t, 2, "--stale-after")
	worker(t, "", "sweep", "--include-node-locks-older-than", "-1s", "-c", database).want(t, 2, "--include-node-locks-older-than")
}
