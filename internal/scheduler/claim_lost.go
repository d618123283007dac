package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// errHoldLost is why a run ends whose held claim is gone.
var errHoldLost = fmt.Errorf("the connection that held the job was lost, and another worker took the job: %w", job.ErrLost)

// rescue locks the jobs of a claim anew whose transaction was lost, and lets them
// go on as ordinary ones; it tries until the database answers, or ctx ends. For
// those that others have taken, there is nothing left to write.
func (cc *claimConn) rescue(ctx context.Context, oc *openClaim, cause error) {
	h := cc.h
	// Whether the commit took effect is known only if a statement was refused.
	unsure := !retry.Refused(cause)
	var kept map[int64]bool
	var refused map[int64]error
	waits := retry.Backoff(retry.Contention)
	for tries := 0; ; tries++ {
		params := h.pool.relock(oc, h.workerID)
		if len(params.Ids) == 0 {
			break
		}
		var err error
		if kept, refused, err = h.relock(ctx, params); err == nil {
			break
		}
		if ctx.Err() != nil {
			h.events.Emit(event.OutcomesAbandoned{WorkerID: h.workerID, JobIDs: params.Ids, Err: errors.Join(cause, err)})
			break
		}
		wait := waits.NextBackOff()
		if tries == 0 {
			h.events.Emit(event.OutcomesDelayed{
				WorkerID: h.workerID, Count: len(params.Ids), Err: errors.Join(cause, err), RetryIn: wait,
			})
		}
		cc.pause(ctx, wait)
	}
	gone, lost := cc.rescued(oc, kept, unsure)
	h.events.Emit(event.HoldLost{WorkerID: h.workerID, Kept: len(kept), Lost: len(gone) + len(lost), Err: cause})
	cc.giveUp(oc, gone, lost, refused, unsure)
}

// rescued ends a claim whose jobs are locked now, as far as they are kept. Of the
// others, gone are those whose runs have ended, and lost those that still run.
func (cc *claimConn) rescued(oc *openClaim, kept map[int64]bool, unsure bool) (gone []completer.Result, lost []*job.Claimed) {
	return cc.h.pool.rescued(oc, kept, func(end completer.Result) {
		end.Unsure = unsure
		cc.h.complete(end)
	})
}

// giveUp tells of the jobs of a claim that are not kept, and ends their runs. refused
// are those that could not be locked.
func (cc *claimConn) giveUp(oc *openClaim, gone []completer.Result, lost []*job.Claimed, refused map[int64]error, unsure bool) {
	h := cc.h
	for _, end := range gone {
		if refusal := refused[end.Job.ID]; refusal != nil {
			delete(refused, end.Job.ID)
			h.tellUnlockable(end, refusal)
			continue
		}
		h.out.ReportLost(end, end.Outcome.Err, unsure)
	}
	if len(refused) > 0 {
		h.refused.queues.Store(true)
	}
	for _, a := range oc.jobs {
		if refusal := refused[a.job.ID]; refusal != nil { // it has not ended
			h.refused.tell(h.events, h.workerID, a.job, refusal)
		}
	}
	h.pool.lose(lost, errHoldLost)
}

// pause waits, unless the database is back before, or ctx ends.
func (cc *claimConn) pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-cc.wake:
	}
}
