package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
)

// workers are the registered workers, and whether they live. A worker's metadata can ask for
// more time.
func (c *checker) workers(ctx context.Context) (alive, stale []dbgen.DoctorWorkersRow, err error) {
	if !c.readable(tableWorkers) {
		return nil, nil, nil
	}
	rows, err := remember(&c.cache.workers, func() ([]dbgen.DoctorWorkersRow, error) {
		return get(ctx, c, (*dbgen.Queries).DoctorWorkers)
	})
	for _, r := range rows {
		if elapsed.Seconds(r.Seconds) >= max(staleWorker, elapsed.Seconds(min(r.StaleAfter, expiredLock.Seconds()))) {
			stale = append(stale, r)
		} else {
			alive = append(alive, r)
		}
	}
	return alive, stale, err
}

func checkStaleWorkers(ctx context.Context, c *checker) (Finding, error) {
	alive, stale, err := c.workers(ctx)
	if err != nil {
		return Finding{}, err
	}
	switch {
	case len(alive)+len(stale) == 0:
		return ok("No worker is registered."), nil
	case len(stale) == 0:
		return ok(fmt.Sprintf("%s registered, and all of them send heartbeats.", plural(len(alive), "worker is", "workers are"))), nil
	}
	locks, err := c.locks(ctx)
	if err != nil {
		return Finding{}, err
	}
	f := Finding{Severity: Warning, Why: "They have died or lost the database, and no worker sweeps: recovery is off everywhere, or none runs."}
	var said, ids []string
	for _, w := range stale {
		text := fmt.Sprintf("%s%s, for %s", w.ID, place(w), age(elapsed.Seconds(w.Seconds)))
		if at := slices.IndexFunc(locks, func(l dbgen.DoctorLocksRow) bool { return l.Worker == w.ID }); at >= 0 {
			f.Severity = Problem
			text += ", holding " + holding(locks[at])
		}
		said = append(said, text)
		ids = append(ids, w.ID)
	}
	if f.Severity == Problem {
		f.Why += " The jobs that they have locked wait until a sweep recovers them, or for 4 hours."
	}
	f.What = fmt.Sprintf("%s no heartbeats: %s.", plural(len(stale), "registered worker sends", "registered workers send"), listed(said, "; "))
	f.Help = []string{
		c.command("sweep"),
		"-- Or, if you are certain that they are dead:",
		fmt.Sprintf("select %s(%s);", c.qualified("recover_dead_worker_jobs"), textArray(first(ids))),
		fmt.Sprintf("select %s(%s);", c.qualified("delete_stale_workers"), textArray(first(ids))),
	}
	return f, nil
}

func place(w dbgen.DoctorWorkersRow) string {
	switch {
	case w.Host != "" && w.Pid != "":
		return fmt.Sprintf(" (%s, pid %s)", w.Host, w.Pid)
	case w.Host != "":
		return " (" + w.Host + ")"
	}
	return ""
}

func holding(l dbgen.DoctorLocksRow) string {
	switch {
	case l.Queues == 0:
		return count(l.Jobs, "job")
	case l.Jobs == 0:
		return count(l.Queues, "queue")
	}
	return count(l.Jobs, "job") + " and " + count(l.Queues, "queue")
}

// checkUnservedTasks looks for tasks whose jobs wait because no worker has the task. It can
// know that only if every live worker says which tasks it has.
func checkUnservedTasks(ctx context.Context, c *checker) (Finding, error) {
	alive, _, err := c.workers(ctx)
	if err != nil {
		return Finding{}, err
	}
	served := map[string]bool{}
	for _, w := range alive {
		if !w.TellsTasks {
			return ok("Not every worker says which tasks it has."), nil
		}
		for _, task := range w.Tasks {
			served[task] = true
		}
	}
	if len(served) == 0 {
		return ok("No worker is registered that says which tasks it has."), nil
	}
	waiting, err := c.waiting(ctx)
	if err != nil {
		return Finding{}, err
	}
	var said []string
	for _, t := range waiting {
		if wait := elapsed.Seconds(t.Seconds); !served[t.Task] && wait >= longWait {
			said = append(said, fmt.Sprintf("%s (%s, for %s)", t.Task, count(t.Jobs, "job"), age(wait)))
		}
	}
	if len(said) == 0 {
		return ok("Registered workers have every task that waits."), nil
	}
	f := Finding{
		Severity: Warning,
		What:     fmt.Sprintf("No registered worker has %s: %s.", plural(len(said), "task that jobs wait for", "tasks that jobs wait for"), listed(said, "; ")),
		Why:      "Their jobs wait until a worker has the task: it was renamed, or its workers are not running.",
		Help:     []string{"Start a worker that has them, or delete the jobs:", c.deleteTasks(waiting, served)},
	}
	locks, err := c.locks(ctx)
	if err != nil {
		return Finding{}, err
	}
	if others := unregistered(locks, alive, nil); len(others) > 0 {
		f.Severity = Note
		f.Why += " Or workers that do not register have them: some " + kinds(others) + " hold locks at this moment."
	}
	return f, nil
}

func (c *checker) deleteTasks(waiting []dbgen.DoctorWaitingTasksRow, served map[string]bool) string {
	var names []string
	for _, t := range waiting {
		if !served[t.Task] && len(names) < namedThings {
			names = append(names, t.Task)
		}
	}
	return fmt.Sprintf("select %s(array(select id from %s where task_identifier = any (%s)));",
		c.qualified("complete_jobs"), c.qualified("jobs"), textArray(names))
}

// kinds names the runtimes of lock holders, each once.
func kinds(locks []dbgen.DoctorLocksRow) string {
	var names []string
	for _, l := range locks {
		if name := kindOf(l.Worker).name(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and ")
}
