package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
)

// Poller polls for a worker that has nothing to do. It does in the same statement
// what recovery would do in statements of its own before the next poll, so that an
// idle worker sends one statement in each poll interval and no more.
//
// Nobody relies on it: what no poll has done when it is due, as the worker is busy or
// something keeps its statements waiting, the keeper and the loop do themselves, on
// connections of their own. Only they act on what a poll has found.
type Poller struct {
	WorkerID string
	Tasks    []string
	// Interval is the time between two polls.
	Interval time.Duration
	Queries  *dbgen.Queries
	Keeper   *Keeper
	Loop     *Loop
}

// Poll reports whether there may be a job to claim.
func (p *Poller) Poll(ctx context.Context) (runnable bool, err error) {
	ask := dbgen.PollParams{
		WorkerID: p.WorkerID, Tasks: p.Tasks, Threshold: p.Loop.Options.StaleAfter.Seconds(),
		Beat: p.Keeper.dueWithin(p.Interval), Sweep: p.Loop.sweepWithin(p.Interval), Reset: p.Loop.resetWithin(p.Interval),
	}
	answer, err := p.Queries.Poll(ctx, ask)
	if ask.Beat && refusal(err) {
		// Something is against the heartbeat, which the keeper finds out and tells.
		ask.Beat = false
		answer, err = p.Queries.Poll(ctx, ask)
	}
	if err != nil {
		return false, fmt.Errorf("asking whether there are jobs: %w", err)
	}
	if ask.Beat {
		p.Keeper.carried(answer.SilentFor)
	}
	if ask.Sweep {
		p.Loop.suspects(answer.Suspects)
	}
	if ask.Reset {
		p.Loop.outdated(answer.Outdated)
	}
	return answer.Runnable, nil
}
