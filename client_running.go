package gworker

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/dbgen"
	recording "github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/store"
)

// A worker with a HoldTime holds jobs by an open transaction, without a lock in their rows.
// The worker's own client shows these jobs as running, and if it changes one, the worker
// ends the transaction at once and not only after the hold time. A client of another
// process, or one that NewClient has made, sees only the rows, and waits.

// holder is what the client of a worker asks about jobs that it holds.
type holder interface {
	Held() []*job.Claimed
	ReleaseEarly(concerns func(*job.Claimed) bool)
}

// held is what the worker holds at this moment.
func (c *operations) held() admin.Held { return c.heldFor(func(*job.Claimed) bool { return true }) }

// heldFor returns the held jobs with a queue, and of the others those that the caller needs.
func (c *operations) heldFor(concerns func(*job.Claimed) bool) admin.Held {
	if c.holder == nil {
		return admin.Held{}
	}
	return admin.NewHeld(slices.DeleteFunc(c.holder.Held(), func(j *job.Claimed) bool {
		return j.Queue == "" && !concerns(j)
	}))
}

// releaseIDs is called before jobs are changed.
func (c *operations) releaseIDs(ids ...int64) {
	if c.holder == nil || len(ids) == 0 {
		return
	}
	named := make(map[int64]bool, len(ids))
	for _, id := range ids {
		named[id] = true
	}
	c.holder.ReleaseEarly(func(j *job.Claimed) bool { return named[j.ID] })
}

// releaseKeys is called before jobs are changed by their keys.
func (c *operations) releaseKeys(specs ...store.Spec) {
	if c.holder == nil {
		return
	}
	named := make(map[string]bool)
	for _, s := range specs {
		if s.Key != "" {
			named[s.Key] = true
		}
	}
	if len(named) > 0 {
		c.holder.ReleaseEarly(func(j *job.Claimed) bool { return j.Key != "" && named[j.Key] })
	}
}

// ErrJobCancelled is the cause (see [context.Cause]) of a handler's context that
// ends because the job was cancelled. The cause's text has the reason.
// However the handler returns then, the job stays failed, with that reason as its
// last error.
var ErrJobCancelled = job.ErrCancelled

// maxReasonLength bounds a reason, in characters.
const maxReasonLength = 10_000

// CancelState is the result of cancelling a job.
type CancelState string

// The results of cancelling a job.
const (
	// CancelRequested: the job runs on a gworker, which was notified. The handler's
	// context ends, and the job stays failed, unless it completes before that.
	CancelRequested CancelState = "requested"
	// CancelKeptFromRetrying: the job runs on a Node or Rust worker, which cannot
	// be interrupted. If the run succeeds the job is complete; otherwise it stays
	// failed.
	CancelKeptFromRetrying CancelState = "kept_from_retrying"
	// CancelFailed: the job was not running, and has failed permanently now.
	CancelFailed CancelState = "failed"
	// CancelAlreadyFailed: the job had failed permanently before. Nothing was
	// changed.
	CancelAlreadyFailed CancelState = "already_failed"
	// CancelNotFound: there is no such job. It is complete, was removed, or never
	// existed.
	CancelNotFound CancelState = "not_found"
)

// CancelResult is what Client.Cancel did.
type CancelResult struct {
	// JobID is the job that was asked for.
	JobID int64
	// State says what became of it.
	State CancelState
	// Task is the job's task, or "" if there is no such job.
	Task string
	// WorkerID is the worker that runs the job, or "" if none does.
	WorkerID string
	// Reason is what stands in the job's last_error now: the reason given, or
	// an earlier one that stays.
	Reason string
}

// Cancel cancels a job, from any process, whether it runs or waits. The result's State says
// what happened; that the job does not exist is a state, not an error.
//
// A running job is cancelled through its worker: the request is written to the job's row,
// so that it cannot be lost, and announced. The worker ends the context of the job's
// handler, with ErrJobCancelled and the reason as its cause, mostly within milliseconds,
// and at the latest after its next heartbeat (10 s, see RecoveryConfig.HeartbeatInterval).
// Once Cancel has returned, no worker tries the job again, whatever happens to the run or
// its worker. A run that completes before its worker learns of the request stays complete,
// and a handler that ignores its context runs to its end.
//
// The job loses its key, like a job that is replaced while it runs. reason becomes its last
// error, in ASCII with escapes (\u65e5) if the database's encoding cannot hold it; "" means
// a general text. Cancelling a job again announces it again; the first reason stays.
func (c *Client) Cancel(ctx context.Context, id int64, reason string) (CancelResult, error) {
	if err := checkText("reason", reason, maxReasonLength); err != nil {
		return CancelResult{}, fmt.Errorf("cancelling job %d: %w", id, err)
	}
	if err := c.reach(ctx); err != nil {
		return CancelResult{}, fmt.Errorf("cancelling job %d: %w", id, err)
	}
	c.releaseIDs(id)
	request := func(reason string) (result cancel.Result, err error) {
		err = c.actions.Record(ctx, c.queries, recording.Action{Kind: string(history.ActionCancel), Reason: reason}, func(q *dbgen.Queries) ([]int64, error) {
			if result, err = cancel.InTx(ctx, q, id, cmp.Or(reason, job.ErrCancelled.Error())); err != nil || !result.Changes() {
				return nil, err
			}
			return []int64{id}, nil
		})
		return result, err
	}
	result, err := request(reason)
	if retry.Unencodable(err) {
		result, err = request(contain.ASCII(reason))
	}
	if err != nil {
		return CancelResult{}, fmt.Errorf("cancelling job %d: %w", id, err)
	}
	return cancelResult(result), nil
}

func cancelResult(r cancel.Result) CancelResult {
	return CancelResult{JobID: r.JobID, State: CancelState(r.State), Task: r.Task, WorkerID: r.WorkerID, Reason: r.Reason}
}
