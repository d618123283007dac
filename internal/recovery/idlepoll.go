package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
)

// IdlePoll polls for a worker that has nothing to do. It does in the same statement
// what recovery would do in statements of its own before the next poll, so that an
// idle worker sends one statement in each poll interval and no more.
//
// Nobody relies on it: what no poll has done when it is due, as the worker is busy or
// something keeps its statements waiting, the heartbeat and the sweeper do themselves, on
// connections of their own. Only they act on what a poll has found.
type IdlePoll struct {
	WorkerID string
	Tasks    []string
	// Interval is the time between two polls.
	Interval  time.Duration
	Queries   *dbgen.Queries
	Heartbeat *Heartbeat
	Sweeper   *Sweeper
}

// Poll reports whether there may be a job to claim.
func (p *IdlePoll) Poll(ctx context.Context) (runnable bool, err error) {
	ask := dbgen.PollParams{
		WorkerID: p.WorkerID, Tasks: p.Tasks, Threshold: p.Sweeper.Options.StaleAfter.Seconds(),
		Beat: p.Heartbeat.dueWithin(p.Interval), Sweep: p.Sweeper.sweepWithin(p.Interval), Reset: p.Sweeper.resetWithin(p.Interval),
	}
	answer, err := p.Queries.Poll(ctx, ask)
	if ask.Beat && refusal(err) {
		// Something is against the heartbeat, which its own goroutine finds out and tells.
		ask.Beat = false
		answer, err = p.Queries.Poll(ctx, ask)
	}
	if err != nil {
		return false, fmt.Errorf("asking whether there are jobs: %w", err)
	}
	if ask.Beat {
		p.Heartbeat.carried(answer.SilentFor)
	}
	if ask.Sweep {
		p.Sweeper.suspects(answer.Suspects)
	}
	if ask.Reset {
		p.Sweeper.outdated(answer.Outdated)
	}
	return answer.Runnable, nil
}
