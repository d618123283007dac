package rights

import (
	"fmt"
	"slices"
	"strings"
)

// right is privileges on an object, as GRANT and REVOKE spell them.
type right struct{ privileges, object string }

// jobColumns are those of a job but for its payload.
const jobColumns = "id, job_queue_id, task_id, priority, run_at, attempts, max_attempts, last_error, created_at, " +
	"updated_at, key, locked_at, locked_by, revision, flags, is_available"

// The columns that adding writes: of a new job, and of one that has the key. None of
// them locks a job.
const (
	insertedColumns = "task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags"
	replacedColumns = insertedColumns + ", revision, attempts, last_error, updated_at"
)

func (p *Plan) rights(kind Kind) []right {
	table := func(name string) string { return "table " + p.object(name) }
	schema := []right{{"usage", "schema " + p.name.Quoted()}, {"select", table("migrations")}}
	switch kind {
	case Producer:
		// A job is returned with all its columns, so it has to be readable; which
		// jobs are, is for the policies to say.
		given := append(schema,
			right{"select (id, identifier), insert (identifier)", table("_private_tasks")},
			right{"select (id, queue_name), insert (queue_name)", table("_private_job_queues")},
			right{fmt.Sprintf("select, insert (%s), update (%s)", insertedColumns, replacedColumns), table("_private_jobs")},
			right{"execute", "function " + p.object("add_job")},
			right{"execute", "function " + p.object("add_jobs")},
		)
		for _, function := range p.adds { // the tables of unique jobs are theirs alone
			given = append(given, right{"execute", "function " + p.object(function)})
		}
		return given
	case Worker:
		given := append(schema, right{"select", table("jobs")})
		for _, t := range p.table {
			given = append(given, right{"select, insert, update, delete", table(t.Name)})
		}
		given = append(given, right{"execute", "all functions in schema " + p.name.Quoted()})
		return append(given, p.historyRights()...)
	case Reader:
		given := append(schema, right{"select", table("jobs")}, right{"select (" + jobColumns + ")", table("_private_jobs")})
		for _, t := range p.table {
			if t.Name != "_private_jobs" {
				given = append(given, right{"select", table(t.Name)})
			}
		}
		return append(given, p.historyRights()...)
	default: // Payloads
		return []right{{"select (payload)", table("_private_jobs")}}
	}
}

// historyRights are those of who reads history. Nobody but its functions writes it.
func (p *Plan) historyRights() []right {
	if !p.history {
		return nil
	}
	var given []right
	for _, table := range []string{"_gworker_journal", "_gworker_events", "_gworker_stats"} {
		given = append(given, right{"select", "table " + p.object(table)})
	}
	return given
}

// policy lets some rows of a table pass for a command.
type policy struct{ table, command, rows string }

func (m policy) prefix(kind Kind) string { return fmt.Sprintf("gworker_%s_%s_", kind, m.command) }

// ownJobs are the jobs that a producer sees and may change: those that its transaction
// has written, and those whose keys it is adding. The functions lock these, and where
// they are too many to be locked, name them. So a producer finds no job of others
// unless it knows the key, and then can do what an add with the key may. Its functions
// are named with their schema, since who grants may have others before it in the search path.
const ownJobs = `updated_at = pg_catalog.now() or key is not null and (
    (pg_catalog.hashtext(key)::bigint & 4294967295) = any (array(
      select l.objid::bigint from pg_catalog.pg_locks l
      where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    ))
    or key = any (array(
      select pg_catalog.json_array_elements_text(nullif(pg_catalog.current_setting('gworker.added_keys', true), '')::json)
    ))
  )`

func (p *Plan) policies(kind Kind) []policy {
	switch kind {
	case Producer:
		return []policy{
			{"_private_job_queues", "select", "using (true)"}, {"_private_job_queues", "insert", "with check (true)"},
			{"_private_jobs", "select", "using (" + ownJobs + ")"}, {"_private_jobs", "insert", "with check (true)"},
			{"_private_jobs", "update", "using (" + ownJobs + ")"},
			{"_private_tasks", "select", "using (true)"}, {"_private_tasks", "insert", "with check (true)"},
		}
	case Payloads: // tells that the role has them
		return []policy{{"_private_jobs", "select", "using (true)"}}
	case Worker, Reader:
	}
	command := "select"
	if kind == Worker {
		command = "all"
	}
	var made []policy
	for _, t := range p.table {
		if t.Secured {
			made = append(made, policy{t.Name, command, "using (true)"})
		}
	}
	return made
}

func (p *Plan) create(kind Kind, m policy) string {
	return fmt.Sprintf("create policy %s on %s for %s to %s %s",
		quoted(m.prefix(kind)+p.roleMark()), p.object(m.table), m.command, quoted(p.role), m.rows)
}

// Parse is the kind of a name that people give.
func Parse(name string) (Kind, error) {
	if kinds := []Kind{Producer, Worker, Reader}; !slices.Contains(kinds, Kind(name)) {
		return "", fmt.Errorf("is %q: it can be producer, worker or reader", strings.ToValidUTF8(name, "?"))
	}
	return Kind(name), nil
}
