package doctor

import (
	"context"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/program"
)

// checkHistory looks whether what happens to jobs can be recorded.
func checkHistory(ctx context.Context, c *checker) (Finding, error) {
	reach, err := getIn(ctx, c, (*dbgen.Queries).HistoryReach)
	switch {
	case err != nil:
		return Finding{}, err
	case reach.Version == 0:
		return ok("There are no tables of history: nothing is recorded about jobs."), nil
	case reach.Version < migrate.NewestHistory:
		return Finding{
			Severity: Warning, What: "The tables of history are of an earlier version.",
			Why:  "Workers of this version record nothing in them.",
			Help: []string{program.Name + " migrate"},
		}, nil
	case reach.Due:
		return Finding{
			Severity: Warning, What: "Nobody has seen to the tables of history for a day: the partitions of coming days are missing.",
			Why: "Workers do that once an hour. Without a partition of the day, events are dropped.",
			Help: []string{
				"start a worker that records history, or look for HistoryUnwritten in the logs of those that run",
				"select " + c.qualified("_gworker_upkeep") + "('7 days', '2 days', '90 days'); -- does it by hand",
			},
		}, nil
	case !reach.Records:
		return ok("There is a history. This role may not record in it, as only workers need that."), nil
	}
	return ok("What happens to jobs can be recorded."), nil
}
