package recovery

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gworker/gworker/internal/dbgen"
)

// record records in history which jobs were recovered, in the sweep's transaction. The
// function that does so has an answer whatever is wrong with its tables, and is called only
// where it is there and may be called: an error would undo the sweep.
func (s *sweep) record(ctx context.Context, q *dbgen.Queries, result SweepResult) error {
	if !s.Record {
		return nil
	}
	asked := false
	for _, w := range result.Workers {
		p := dbgen.RecordRunsParams{WorkerID: w.ID}
		for _, j := range w.Jobs {
			if j.Refused != nil || j.Action == Skip {
				continue
			}
			details, err := json.Marshal(recoveredDetails{By: s.Self, SilentSeconds: w.Silence.Seconds(), GivenUp: j.GivenUp || j.Cancelled})
			if err != nil {
				return fmt.Errorf("describing the recovery of job %d: %w", j.ID, err)
			}
			p.Kinds, p.Ids, p.Tasks = append(p.Kinds, "recovered"), append(p.Ids, j.ID), append(p.Tasks, j.Task)
			p.Attempts, p.Errors, p.Details = append(p.Attempts, int32(j.Attempts)), append(p.Errors, ""), append(p.Details, string(details))
			p.Waits, p.Runs = append(p.Waits, -1), append(p.Runs, -1)
		}
		if len(p.Ids) == 0 {
			continue
		}
		if !asked {
			reach, err := q.HistoryReach(ctx, s.statements.Schema())
			if err != nil {
				return fmt.Errorf("looking for the tables of history: %w", err)
			}
			if asked = reach.Version > 0 && reach.Records; !asked {
				return nil
			}
		}
		if _, err := q.RecordRuns(ctx, p); err != nil {
			return fmt.Errorf("recording the recovery of %d jobs: %w", len(p.Ids), err)
		}
	}
	return nil
}

// recoveredDetails are those of the event.
type recoveredDetails struct {
	By            string  `json:"by,omitempty"` // the worker that swept
	SilentSeconds float64 `json:"silent_seconds"`
	GivenUp       bool    `json:"given_up,omitempty"`
}
