package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
	"github.com/gworker/gworker/internal/recovery"
)

// kind is a form of ids in locked_by, which tells the runtime.
type kind int

const (
	foreign kind = iota
	own
	ownSilent // configured not to register
	rust
	node
)

func kindOf(worker string) kind {
	if strings.HasPrefix(worker, recovery.UnregisteredPrefix) {
		return ownSilent
	}
	switch recovery.RuntimeOf(worker) {
	case "gworker":
		return own
	case "rust":
		return rust
	case "node":
		return node
	}
	return foreign
}

func (k kind) name() string {
	return [...]string{"of an unknown maker", "of gworker", "of gworker, recovery off", "of Rust", "of Node"}[k]
}

// unregistered are the locks of workers that are not registered.
func unregistered(locks []dbgen.DoctorLocksRow, alive, stale []dbgen.DoctorWorkersRow) []dbgen.DoctorLocksRow {
	known := map[string]bool{}
	for _, list := range [][]dbgen.DoctorWorkersRow{alive, stale} {
		for _, w := range list {
			known[w.ID] = true
		}
	}
	var rest []dbgen.DoctorLocksRow
	for _, l := range locks {
		if !known[l.Worker] {
			rest = append(rest, l)
		}
	}
	return rest
}

func checkUnknownWorkers(ctx context.Context, c *checker) (Finding, error) {
	alive, stale, err := c.workers(ctx)
	if err != nil {
		return Finding{}, err
	}
	locks, err := c.locks(ctx)
	if err != nil {
		return Finding{}, err
	}
	found := ok("Every lock is a registered worker's.")
	var said, why, help, seize []string
	explained := map[kind]bool{}
	for _, l := range unregistered(locks, alive, stale) {
		k := kindOf(l.Worker)
		severity := judgeLock(k, l, c.readable(tableWorkers))
		if severity == OK {
			continue
		}
		found.Severity = max(found.Severity, severity)
		said = append(said, fmt.Sprintf("%s (%s) holds %s, for %s", l.Worker, k.name(), holding(l), age(elapsed.Seconds(l.Seconds))))
		if !explained[k] {
			explained[k] = true
			why = append(why, whyUnknown[k])
		}
		switch {
		case severity == Note:
		case k == own && c.readable(tableWorkers):
			help = appendNew(help, c.command("sweep"))
		case k == node && c.readable(tableWorkers):
			help = appendNew(help, c.command("sweep --include-node-locks-older-than 4h"))
		default:
			seize = append(seize, l.Worker)
		}
	}
	if len(said) == 0 {
		return found, nil
	}
	found.What = fmt.Sprintf("%s not registered: %s.", plural(len(said), "worker holds locks and is", "workers hold locks and are"), listed(said, "; "))
	found.Why = strings.Join(why, " ")
	if len(seize) > 0 {
		help = append(help, fmt.Sprintf("select %s(%s); -- if you are certain that they are dead",
			c.qualified("force_unlock_workers"), textArray(first(seize))))
	}
	found.Help = help
	return found, nil
}

var whyUnknown = map[kind]string{
	own:       "gworker's workers register before they claim: one that is not registered was declared dead, and no worker sweeps.",
	ownSilent: "A worker with recovery off sends no heartbeats: if it has died, its jobs wait for 4 hours.",
	rust:      "Rust's workers register only if recovery is on: without it nothing shows whether one is alive, and the jobs of a dead one wait for 4 hours.",
	node:      "Node's workers never register, so this is normal while they run their jobs. A lock that is older than 4 hours is reset by the next worker that looks.",
	foreign:   "No Graphile Worker writes such an id: a program or a person has locked these by hand, and only the reset after 4 hours unlocks them.",
}

// judgeLock judges the locks of a worker that is not registered; canRegister says that the
// schema has the table for registrations.
func judgeLock(k kind, l dbgen.DoctorLocksRow, canRegister bool) Severity {
	held := elapsed.Seconds(l.Seconds)
	switch {
	case held >= expiredLock:
		return Problem
	case k == node:
		return Note
	case held < unknownLock:
		return OK
	case k == rust || k == ownSilent || k == own && !canRegister:
		return Note
	}
	return Warning
}

func appendNew(list []string, text string) []string {
	for _, t := range list {
		if t == text {
			return list
		}
	}
	return append(list, text)
}

func checkOldLocks(ctx context.Context, c *checker) (Finding, error) {
	locks, err := c.locks(ctx)
	if err != nil {
		return Finding{}, err
	}
	var old dbgen.DoctorLocksRow
	for _, l := range locks {
		old.Jobs += l.OldJobs
		old.Queues += l.OldQueues
		old.Seconds = max(old.Seconds, l.Seconds)
	}
	if old.Jobs+old.Queues == 0 {
		return ok("No lock is older than 4 hours."), nil
	}
	return Finding{
		Severity: Problem,
		What: fmt.Sprintf("%s locked for more than 4 hours, the longest for %s.",
			are(holding(old), old.Jobs+old.Queues), age(elapsed.Seconds(old.Seconds))),
		Why: "Every worker resets such locks within ten minutes or so, so probably none is running. " +
			"If one does run such a job all that time, the reset makes it run twice: split the job.",
		Help: []string{
			"-- As workers do it:",
			fmt.Sprintf("update %s set locked_at = null, locked_by = null, run_at = greatest(run_at, now()) where locked_at < now() - interval '4 hours';", c.qualified(tableJobs)),
			fmt.Sprintf("update %s set locked_at = null, locked_by = null where locked_at < now() - interval '4 hours';", c.qualified(tableQueues)),
		},
	}, nil
}

func are(subject string, n int64) string {
	if n == 1 {
		return subject + " is"
	}
	return subject + " are"
}

func checkIdleQueues(ctx context.Context, c *checker) (Finding, error) {
	rows, err := get(ctx, c, func(q *dbgen.Queries, ctx context.Context) ([]dbgen.DoctorIdleQueuesRow, error) {
		return q.DoctorIdleQueues(ctx, idleQueueLock.Seconds())
	})
	if err != nil {
		return Finding{}, err
	}
	if len(rows) == 0 {
		return ok("Every locked queue has a job that runs."), nil
	}
	var said, ids []string
	for _, r := range rows {
		said = append(said, fmt.Sprintf("%s (by %s, for %s)", r.Name, r.Worker, age(elapsed.Seconds(r.Seconds))))
		ids = append(ids, fmt.Sprint(r.ID))
	}
	return Finding{
		Severity: Warning,
		What:     fmt.Sprintf("%s locked without a job that runs: %s.", plural(len(rows), "queue is", "queues are"), listed(said, "; ")),
		Why:      "No job of such a queue starts until the lock is reset, 4 hours after it was taken.",
		Help: []string{fmt.Sprintf("update %s q set locked_at = null, locked_by = null where q.id in (%s) and not exists "+
			"(select from %s j where j.job_queue_id = q.id and j.locked_at is not null);",
			c.qualified(tableQueues), strings.Join(first(ids), ", "), c.qualified(tableJobs))},
	}, nil
}
