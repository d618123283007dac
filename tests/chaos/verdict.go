//go:build unix

package main

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed verdict.sql
var verdictSQL string

// verdict is what a run ends with.
type verdict struct {
	seed    uint64
	figures []string
	broken  []violation
}

func (v *verdict) failed() bool { return v == nil || len(v.broken) > 0 }

func (v *verdict) print(print func(string)) {
	print("")
	for _, line := range v.figures {
		print(line)
	}
	print("")
	if !v.failed() {
		print(fmt.Sprintf("PASS (seed %d)", v.seed))
		return
	}
	for _, b := range v.broken {
		print("BROKEN: " + b.Rule + "\n    " + b.Evidence)
	}
	print(fmt.Sprintf("FAIL: %d rules broken; -seed %d draws the same faults", len(v.broken), v.seed))
}

// shown is how much evidence is printed for a rule.
const shown = 5

// judge brings all records to the oracle and asks for what breaks the rules.
func (c *chaos) judge(ctx context.Context) (*verdict, error) {
	if err := c.collect(ctx); err != nil {
		return nil, err
	}
	v := &verdict{seed: c.options.Seed, broken: c.log.violations()}
	unexplained, err := c.explainLosses(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for lost claims: %w", err)
	}
	v.add("a claim that holds jobs is lost only by a fault", unexplained)
	for _, r := range rules {
		found, err := c.oracle.lines(ctx, r.sql)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		v.add(r.name, found)
	}
	wrong, err := c.wrongRecoveries(ctx)
	if err != nil {
		return nil, err
	}
	v.add("locks are taken only from workers that are dead or were silent for long enough", wrong)
	late, err := c.lateCancels(ctx)
	if err != nil {
		return nil, err
	}
	v.add("a run ends soon after its worker could know that its lock was taken", late)
	lateEnds, err := c.lateHoldEnds(ctx)
	if err != nil {
		return nil, err
	}
	v.add("a run ends soon after its worker could know that its hold was lost", lateEnds)
	v.add("memory and connections stay flat", c.figures.growth())
	v.figures, err = c.figures.lines(ctx, c)
	return v, err
}

func (v *verdict) add(name string, evidence []string) {
	if len(evidence) == 0 {
		return
	}
	text := fmt.Sprintf("%d times: ", len(evidence))
	for i, line := range evidence {
		if i == shown {
			text += "\n    ..."
			break
		}
		text += "\n    " + line
	}
	v.broken = append(v.broken, violation{Rule: name, Evidence: text})
}

// collect fills the oracle's tables with what others know.
func (c *chaos) collect(ctx context.Context) error {
	conn, err := connectTo(ctx, c.cluster.now().url())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var real func(time.Time) time.Time
	if c.cluster.clock != nil {
		real = c.log.real
		if _, err := c.oracle.pool.Exec(ctx, `
			update runs set locked_at = locked_at - round(extract(epoch from locked_at - started_at) / $1) * $1 * interval '1 s'`,
			clockStep.Seconds()); err != nil {
			return fmt.Errorf("taking the steps of the clock back: %w", err)
		}
	}
	err = c.oracle.put(ctx, "jobs", []string{"n", "state", "expect", "attempts", "replaced", "runs", "stored"}, c.load.rows())
	if err != nil {
		return err
	}
	err = c.oracle.copyTo(ctx, "leftovers",
		[]string{"job_id", "n", "attempts", "max_attempts", "key", "locked_by", "last_error"}, conn,
		`select id, (payload ->> 'n')::bigint, attempts::int, max_attempts::int, key, locked_by, last_error
		from graphile_worker._private_jobs`, nil)
	if err != nil {
		return err
	}
	for table, columns := range map[string][]string{
		"releases": {"job_id", "locked_by", "locked_at", "attempt", "by_app", "at", "deleted"},
		"locks":    {"job_id", "locked_by", "locked_at", "at", "relocked"},
		"endings":  {"job_id", "by_app", "claimed_at", "at", "deleted"},
		"done":     {"n", "job_id"},
		"failures": {"job_id", "task", "error", "at"},
	} {
		err = c.oracle.copyTo(ctx, table, columns, conn, "select "+strings.Join(columns, ", ")+" from chaos."+table, real)
		if err != nil {
			return err
		}
	}
	var processes, ids [][]any
	for _, s := range c.fleet.slots {
		for _, p := range s.processes() {
			processes = append(processes, []any{p.name, string(s.runtime), p.ended, p.wasKilled()})
			for _, id := range p.workerIDs() {
				ids = append(ids, []any{id, p.name})
			}
		}
	}
	if err := c.oracle.put(ctx, "processes", []string{"name", "runtime", "ended_at", "killed"}, processes); err != nil {
		return err
	}
	if err := c.oracle.put(ctx, "ids", []string{"worker_id", "process"}, ids); err != nil {
		return err
	}
	if _, err := c.oracle.pool.Exec(ctx, verdictSQL); err != nil {
		return fmt.Errorf("preparing the verdict: %w", err)
	}
	return nil
}

func (f *fleet) find(process string) (*slot, *process) {
	for _, s := range f.slots {
		for _, p := range s.processes() {
			if p.name == process {
				return s, p
			}
		}
	}
	return nil, nil
}

// lines returns the one column that a query finds.
func (o *oracle) lines(ctx context.Context, sql string) ([]string, error) {
	rows, err := o.pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
