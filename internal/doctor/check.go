package doctor

import (
	"context"
	"slices"
	"strings"
)

// check is one check of the report.
type check struct {
	id string
	// reads are tables whose rows the check needs. It is left out if they, or columns
	// of them, are missing or may not be read, which other checks report.
	reads []string
	// bare says that the check needs no schema.
	bare bool
	run  func(context.Context, *checker) (Finding, error)
}

const (
	tableJobs    = "_private_jobs"
	tableQueues  = "_private_job_queues"
	tableTasks   = "_private_tasks"
	tableWorkers = "_private_workers"
)

// checks are all checks, in the order of the report.
func (c *checker) checks() []check {
	if c.tooOld() {
		return []check{{id: "server-version", bare: true, run: checkVersion}}
	}
	jobs := []string{tableJobs, tableTasks, tableQueues}
	return []check{
		{id: "server-version", bare: true, run: checkVersion},
		{id: "read-only", bare: true, run: checkReadOnly},
		{id: "timeouts", bare: true, run: checkTimeouts},
		{id: "encoding", bare: true, run: checkEncoding},
		{id: "isolation", bare: true, run: checkIsolation},
		{id: "connections", bare: true, run: checkConnections},
		{id: "clock", bare: true, run: checkClock},
		{id: "pooler", bare: true, run: checkPooler},

		{id: "autovacuum", bare: true, run: checkAutovacuum},
		{id: "track-counts", bare: true, run: checkTrackCounts},
		{id: "old-transactions", bare: true, run: checkOldTransactions},
		{id: "prepared-transactions", bare: true, run: checkPreparedTransactions},
		{id: "replication-slots", bare: true, run: checkReplicationSlots},
		{id: "standby-feedback", bare: true, run: checkStandbys},

		{id: "schema", bare: true, run: checkSchema},
		{id: "objects", run: checkObjects},
		{id: "functions", run: checkFunctions},
		{id: "triggers", run: checkTriggers},
		{id: "indexes", run: checkIndexes},
		{id: "foreign-keys", run: checkForeignKeys},
		{id: "unlogged-tables", run: checkUnlogged},
		{id: "rights", run: checkRights},
		{id: "search-path", run: checkSearchPath},
		{id: "row-security", run: checkRowSecurity},
		{id: "identities", run: checkIdentities},
		{id: "dead-rows", run: checkDeadRows},
		{id: "bloat", run: checkBloat},
		{id: "history", run: checkHistory},

		{id: "stale-workers", reads: []string{tableWorkers, tableJobs, tableQueues}, run: checkStaleWorkers},
		{id: "unknown-workers", reads: jobs, run: checkUnknownWorkers},
		{id: "old-locks", reads: jobs, run: checkOldLocks},
		{id: "idle-queues", reads: jobs, run: checkIdleQueues},
		{id: "failed-jobs", reads: jobs, run: checkFailedJobs},
		{id: "latency", reads: jobs, run: checkLatency},
		{id: "unserved-tasks", reads: append(jobs, tableWorkers), run: checkUnservedTasks},
	}
}

func (c *checker) applies(one check) bool {
	if one.bare {
		return true
	}
	if len(c.tables) == 0 {
		return false
	}
	for _, name := range one.reads {
		if !c.readable(name) {
			return false
		}
	}
	return true
}

// readable says that all rows of a table can be read.
func (c *checker) readable(name string) bool {
	table, exists := c.tables[name]
	if !exists || !table.MaySelect || table.Secured || c.inspected != nil {
		return false
	}
	return !slices.ContainsFunc(c.status.Missing, func(object string) bool {
		return strings.HasPrefix(object, "column "+name+".")
	})
}

func ok(what string) Finding { return Finding{Severity: OK, What: what} }
