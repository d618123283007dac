package recovery

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
)

// IdlePoll polls for an idle worker. The polling statement also does what recovery would
// otherwise do by separate statements before the next poll, so that an idle worker sends
// one statement in each poll interval.
//
// Nothing relies on it. What no poll has done by its deadline, because the worker is busy
// or its statements are blocked, the heartbeat and the sweeper do themselves, on their own
// connections. Only they act on what a poll has found.
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
		LooksFor: p.Heartbeat.Metadata.LooksFor, HeardWithin: p.Heartbeat.heardWithin().Seconds(),
	}
	answer, err := p.Queries.Poll(ctx, ask)
	if ask.Beat && refusal(err) {
		// The database refuses the heartbeat. Its own goroutine finds that out and reports it.
		ask.Beat = false
		answer, err = p.Queries.Poll(ctx, ask)
	}
	if err != nil {
		return false, fmt.Errorf("asking whether there are jobs: %w", err)
	}
	if ask.Beat {
		p.Heartbeat.carried(answer.SilentFor, answer.Alike)
	}
	if ask.Sweep {
		p.Sweeper.suspects(answer.Suspects)
	}
	if ask.Reset {
		p.Sweeper.outdated(answer.Outdated)
	}
	return answer.Runnable, nil
}
