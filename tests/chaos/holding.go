//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The rules of held claims. A job that a transaction holds is free again as soon as the
// server learns that the transaction's connection has ended, whether or not its process
// has. So such a job may run twice. The rules on overlapping and repeated runs make an
// exception for its run if
//
//   - the transaction was lost: it wrote neither the end of the job nor its lock;
//   - a fault that ends connections, or makes the server end them, hit its worker
//     between the claim and the time at which the claim was due to end;
//   - and, if another run began meanwhile, it ended soon after its worker could
//     know: after the hold time and the end of the faults at the two workers. The
//     later worker waits for the row that the other holds.
//
// Without a fault no transaction may be lost, and a run whose job no other worker has
// taken goes on: those are rules of their own.

// claimEnd is how long the end of a claim may take on a busy machine.
const claimEnd = time.Second

// endsClaims says that a fault can end a claim's transaction.
func endsClaims(f fault) bool {
	switch f.Kind {
	case "blink", "delay":
		return false // far shorter than the server's and the workers' patience
	}
	return true
}

// faultThatLost is the number of the fault that explains why a claim of a slot, open
// from claimed on, was lost.
func (j *journal) faultThatLost(slot string, claimed time.Time) (number int, ok bool) {
	for _, f := range j.of(slot) {
		if endsClaims(f) && !f.From.After(claimed.Add(holdTime(slot)+claimEnd)) && f.To.Add(reconnecting).After(claimed) {
			return f.Number, true
		}
	}
	return 0, false
}

// explainLosses fills the oracle's table of explained runs, and returns those whose claims
// were lost without a fault. A shutdown puts the jobs of interrupted runs back, and the
// claim then writes nothing: those are left out.
func (c *chaos) explainLosses(ctx context.Context) (evidence []string, err error) {
	type run struct {
		ID      int64
		Process string
		Job     int64
		Claimed time.Time
		Outcome string
	}
	runs, err := records[run](ctx, c.oracle, `
		select id, worker, job_id, locked_at, coalesce(outcome, 'no end') from ran where claim_lost or relocked order by locked_at`)
	if err != nil {
		return nil, err
	}
	var explained [][]any
	for _, r := range runs {
		s, _ := c.fleet.find(r.Process)
		if number, ok := c.log.faultThatLost(s.name, r.Claimed); ok {
			explained = append(explained, []any{r.ID, number})
		} else if r.Outcome != "cut" {
			evidence = append(evidence, fmt.Sprintf("job %d, claimed by %s at %s, was held, and neither ended nor locked by its claim: its run ended with %s",
				r.Job, r.Process, c.log.at(r.Claimed), r.Outcome))
		}
	}
	_, err = c.oracle.pool.CopyFrom(ctx, pgx.Identifier{"explained"}, []string{"run_id", "fault"}, pgx.CopyFromRows(explained))
	return evidence, err
}

// lateHoldEnds finds runs that went on while the job ran elsewhere, although their worker
// could have known that their claim was lost.
func (c *chaos) lateHoldEnds(ctx context.Context) (evidence []string, err error) {
	type pair struct {
		Process, Other string
		Job            int64
		Began, End     time.Time
	}
	pairs, err := records[pair](ctx, c.oracle, `
		select a.worker, b.worker, a.job_id, b.started_at, a.ended_at
		from ran a join ran b on b.job_id = a.job_id and b.started_at >= a.started_at and b.id <> a.id and b.started_at < a.ended_at
		where a.claim_lost and not (a.killed and a.outcome is null) order by a.ended_at`)
	for _, r := range pairs {
		s, _ := c.fleet.find(r.Process)
		knows := r.Began.Add(holdTime(s.name))
		for _, process := range []string{r.Other, r.Process} {
			s, _ := c.fleet.find(process)
			for _, w := range c.log.windows(s.name, func(fault) bool { return true }) {
				if !knows.Before(w.from) && knows.Before(w.to) {
					knows = w.to
				}
			}
		}
		if r.End.After(knows.Add(noticing)) {
			evidence = append(evidence, fmt.Sprintf("job %d ran on %s from %s on, and %s went on with it until %s",
				r.Job, r.Other, c.log.at(r.Began), r.Process, c.log.at(r.End)))
		}
	}
	return evidence, err
}
