package gworker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/admin"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/dbgen"
	recording "github.com/gworker/gworker/internal/history"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// JobInfo is a job as it was at ReadAt, by the database's clock, with the state
// that it was in. Without a payload its Payload is nil.
type JobInfo struct {
	// JobRow is the job's row.
	JobRow
	// State says whether the job runs, and what it waits for otherwise.
	State JobState `json:"state"`
	// QueueLockedBy is the worker that has locked the job's queue, or "". A blocked job
	// waits for that worker.
	QueueLockedBy string `json:"queue_locked_by,omitempty"`
	// QueueLockedAt is when that worker locked the queue; zero if none has.
	QueueLockedAt time.Time `json:"queue_locked_at,omitzero"`
	// ReadAt is the database's time when the job was read.
	ReadAt time.Time `json:"read_at,omitzero"`
}

// ChangedJobs is the result of an administrative call for jobs.
type ChangedJobs struct {
	// Jobs are those that were changed, by id: as they are now, or as they were
	// if they are gone.
	Jobs []*JobInfo `json:"jobs"`
	// Untouched are the others, by id.
	Untouched []UntouchedJob `json:"not_touched"`
}

// UntouchedJob is a job that an administrative call has not changed.
type UntouchedJob struct {
	// ID is the job's id.
	ID int64 `json:"id"`
	// Reason is why the job was not changed.
	Reason UntouchedReason `json:"reason"`
	// Job is the job as it was read, or nil if there is none. Its LockedBy is "" if a
	// worker was claiming it at that moment, or another process held it without a lock
	// (see Config.HoldTime); then it may have ended by now.
	Job *JobInfo `json:"job,omitempty"`
}

// UntouchedReason is why a job was not changed.
type UntouchedReason string

// The reasons.
const (
	// UntouchedLocked: the job has been locked by a worker for less than 4 hours.
	UntouchedLocked UntouchedReason = "locked"
	// UntouchedNotFound: there is no job with this id.
	UntouchedNotFound UntouchedReason = "not_found"
)

func jobInfo(j *admin.Job) *JobInfo {
	if j == nil {
		return nil
	}
	return &JobInfo{
		JobRow: JobRow(j.Row), State: JobState(j.State),
		QueueLockedBy: j.QueueLockedBy, QueueLockedAt: j.QueueLockedAt, ReadAt: j.ReadAt,
	}
}

func jobInfos(jobs []*admin.Job) []*JobInfo { return converted(jobs, jobInfo) }

func changedJobs(c admin.Changed) ChangedJobs {
	return ChangedJobs{Jobs: jobInfos(c.Jobs), Untouched: converted(c.Untouched, func(u admin.Untouched) UntouchedJob {
		return UntouchedJob{ID: u.ID, Reason: UntouchedReason(u.Reason), Job: jobInfo(u.Job)}
	})}
}

// converted is a list of what internal packages have as users get it; nil stays nil.
func converted[From, To any](from []From, convert func(From) To) []To {
	if from == nil {
		return nil
	}
	to := make([]To, len(from))
	for i, f := range from {
		to[i] = convert(f)
	}
	return to
}

// CompleteJobs deletes jobs as if they had completed, in any state but running: running jobs
// are not touched, as in every Graphile Worker. Those, and ids without a job, are no error;
// the result lists them. It has the deleted jobs as they were.
//
// A job that has been locked for more than 4 hours does not count as running here, in
// PermanentlyFailJobs and in RescheduleJobs.
func (c *operations) CompleteJobs(ctx context.Context, ids []int64) (ChangedJobs, error) {
	held := c.held() // before the transactions that hold them end
	c.releaseIDs(ids...)
	result, err := c.change(ctx, ids, recording.Action{Kind: string(history.ActionComplete)}, func(q *dbgen.Queries) (admin.Changed, error) {
		return admin.Complete(ctx, q, ids, held)
	})
	return changedJobs(result), doing(err, "completing", ids)
}

// PermanentlyFailJobs uses up the attempts of jobs, so that they are kept and not run again,
// with reason as their last error. "" means the schema's own text, "Manually marked as
// failed". Characters that the database's encoding cannot hold are stored as escapes
// (\u65e5), except in a transaction of yours, where they are an error. Running jobs are not
// touched; see CompleteJobs.
func (c *operations) PermanentlyFailJobs(ctx context.Context, ids []int64, reason string) (ChangedJobs, error) {
	if err := checkText("reason", reason, math.MaxInt); err != nil {
		return ChangedJobs{}, doing(err, "failing", ids)
	}
	held := c.held() // before the transactions that hold them end
	c.releaseIDs(ids...)
	fail := func(reason string) (admin.Changed, error) {
		return c.change(ctx, ids, recording.Action{Kind: string(history.ActionFail), Reason: reason}, func(q *dbgen.Queries) (admin.Changed, error) {
			return admin.Fail(ctx, q, ids, reason, held)
		})
	}
	result, err := fail(reason)
	if retry.Unencodable(err) {
		// In a caller's transaction this fails, too, since the first error has aborted it.
		if again, againErr := fail(contain.ASCII(reason)); againErr == nil {
			result, err = again, nil
		}
	}
	return changedJobs(result), doing(err, "failing", ids)
}

// RescheduleOptions say what RescheduleJobs changes. A nil field leaves the value as it is;
// at least one must be set.
type RescheduleOptions struct {
	// RunAt is the time before which the job does not run. The zero time means
	// now, by the database's clock.
	RunAt *time.Time

	// Priority orders runnable jobs, lower numbers first: -32768 to 32767.
	Priority *int

	// Attempts is how many attempts the job has had: 0 to 32767. A failed job
	// can run again only with fewer than its MaxAttempts.
	Attempts *int

	// MaxAttempts is the number of attempts after which a failing job stays
	// failed: 1 to 32767.
	MaxAttempts *int
}

func (o RescheduleOptions) encode() (admin.Reschedule, error) {
	const field = "RescheduleOptions"
	if o == (RescheduleOptions{}) {
		return admin.Reschedule{}, problem(field, "is empty: say what to change")
	}
	to := admin.Reschedule{RunAt: o.RunAt}
	if o.RunAt != nil {
		if err := checkTime(field+".RunAt", *o.RunAt); err != nil {
			return admin.Reschedule{}, err
		}
	}
	for _, n := range []struct {
		name  string
		given *int
		least int
		into  **int32
	}{
		{"Priority", o.Priority, math.MinInt16, &to.Priority},
		{"Attempts", o.Attempts, 0, &to.Attempts},
		{"MaxAttempts", o.MaxAttempts, 1, &to.MaxAttempts},
	} {
		if n.given == nil {
			continue
		}
		if *n.given < n.least || *n.given > math.MaxInt16 {
			return admin.Reschedule{}, problem(field+"."+n.name, "is %d: it can be %d to %d", *n.given, n.least, math.MaxInt16)
		}
		value := int32(*n.given)
		*n.into = &value
	}
	return to, nil
}

// checkTime refuses what PostgreSQL or JSON cannot hold. The zero time passes.
func checkTime(field string, at time.Time) error {
	if year := at.UTC().Year(); !at.IsZero() && (year < 1 || year > 9999) {
		return problem(field, "is in the year %d: it can be in the years 1 to 9999", year)
	}
	return nil
}

// RescheduleJobs changes when jobs run, their priority and their attempts, and
// wakes workers for those that can run now. Running jobs are not touched; see
// CompleteJobs. A failed job has used up its attempts: RetryJobs runs it again.
func (c *operations) RescheduleJobs(ctx context.Context, ids []int64, options RescheduleOptions) (ChangedJobs, error) {
	to, err := options.encode()
	if err != nil {
		return ChangedJobs{}, doing(err, "rescheduling", ids)
	}
	held := c.held() // before the transactions that hold them end
	c.releaseIDs(ids...)
	result, err := c.change(ctx, ids, recording.Action{Kind: string(history.ActionReschedule), What: options.recorded()}, func(q *dbgen.Queries) (admin.Changed, error) {
		return admin.RescheduleAll(ctx, q, ids, to, held)
	})
	return changedJobs(result), doing(err, "rescheduling", ids)
}

// RetryJobs runs jobs again now, with as many attempts as when they were added:
// failed ones, and those that wait for their next attempt or their time. It is
// RescheduleJobs with RunAt now and Attempts 0; running jobs are not touched. The last
// error stays until there is another.
func (c *operations) RetryJobs(ctx context.Context, ids []int64) (ChangedJobs, error) {
	held := c.held() // before the transactions that hold them end
	c.releaseIDs(ids...)
	result, err := c.change(ctx, ids, recording.Action{Kind: string(history.ActionRetry)}, func(q *dbgen.Queries) (admin.Changed, error) {
		return admin.RescheduleAll(ctx, q, ids, admin.Reschedule{RunAt: new(time.Time), Attempts: new(int32)}, held)
	})
	return changedJobs(result), doing(err, "retrying", ids)
}

// PreviewJobs returns which of these jobs RetryJobs, CompleteJobs, PermanentlyFailJobs and
// RescheduleJobs would change now, and changes nothing: the result's Jobs are those that
// would be changed, as they are.
func (c *operations) PreviewJobs(ctx context.Context, ids []int64) (ChangedJobs, error) {
	result, err := admin.Preview(ctx, c.reads.jobs(ctx), ids, c.held())
	return changedJobs(result), doing(err, "looking at", ids)
}

// GetJob returns the job with the given id, or ErrJobNotFound: completed jobs
// are not kept. The Payload is nil if the client's role may not read payloads.
func (c *operations) GetJob(ctx context.Context, id int64) (*JobInfo, error) {
	found, err := admin.Get(ctx, c.reads.jobs(ctx), id, c.heldFor(func(j *job.Claimed) bool { return j.ID == id }))
	if err != nil {
		return nil, fmt.Errorf("reading job %d: %w", id, err)
	}
	return jobInfo(found), nil
}

// GetJobByKey returns the job with the given key, or ErrJobNotFound.
func (c *operations) GetJobByKey(ctx context.Context, key string) (*JobInfo, error) {
	if err := checkText("key", key, maxKeyLength); err != nil {
		return nil, fmt.Errorf("reading a job: %w", err)
	}
	found, err := admin.GetByKey(ctx, c.reads.jobs(ctx), key, c.heldFor(func(j *job.Claimed) bool { return j.Key == key }))
	if err != nil {
		return nil, fmt.Errorf("reading the job with key %q: %w", key, err)
	}
	return jobInfo(found), nil
}

// WorkerLocks are the jobs and queues that a worker has locked.
type WorkerLocks struct {
	// WorkerID is the id of the worker.
	WorkerID string `json:"worker_id,omitempty"`
	// Jobs are the jobs that it has locked.
	Jobs []LockedJob `json:"jobs"`
	// Queues are the names of the queues that it has locked.
	Queues []string `json:"queues"`
}

// LockedJob is a job that a worker has locked.
type LockedJob struct {
	// ID is the job's id.
	ID int64 `json:"id"`
	// Task is the identifier of its task.
	Task string `json:"task_identifier"`
	// Attempts counts the runs started so far, the present one included.
	Attempts int `json:"attempts"`
	// MaxAttempts is the number of runs after which a failing job stays failed.
	MaxAttempts int `json:"max_attempts"`
	// LockedFor is the age of the lock, by the database's clock.
	LockedFor time.Duration `json:"locked_for_ns"`
}

func workerLocks(l admin.Locks) WorkerLocks {
	return WorkerLocks{
		WorkerID: l.WorkerID, Queues: l.Queues,
		Jobs: converted(l.Jobs, func(j admin.LockedJob) LockedJob { return LockedJob(j) }),
	}
}

// ForceUnlockWorkers removes the locks of workers, of any age, and returns what each of them
// had locked. Use it only for workers that are certainly dead; Client.Sweep finds out which
// registered workers are.
//
// It stops nothing that is running. If a worker still runs a job, another one can
// start it at once, and both run it. A gworker's first run then ends with ErrJobLost
// and stores nothing; Node's and Rust's workers delete a finished job by its id, even
// while the second run goes on. The interrupted attempt stays counted: a job that was
// on its last one is failed then.
func (c *operations) ForceUnlockWorkers(ctx context.Context, workerIDs []string) ([]WorkerLocks, error) {
	if err := checkWorkerIDs(workerIDs); err != nil {
		return nil, fmt.Errorf("unlocking workers: %w", err)
	}
	if len(workerIDs) == 0 {
		return nil, nil
	}
	var locks []admin.Locks
	what := map[string]any{"workers": workerIDs[:min(len(workerIDs), 100)]}
	err := c.actions.Record(ctx, c.queries, recording.Action{Kind: string(history.ActionUnlock), What: what}, func(q *dbgen.Queries) (ids []int64, err error) {
		locks, err = admin.ForceUnlock(ctx, q, workerIDs)
		for _, w := range locks {
			for _, j := range w.Jobs {
				ids = append(ids, j.ID)
			}
		}
		return ids, err
	})
	if err != nil {
		return nil, fmt.Errorf("unlocking workers by force: %w", err)
	}
	return converted(locks, workerLocks), nil
}

// LockedBy returns what workers have locked: what ForceUnlockWorkers would unlock.
func (c *operations) LockedBy(ctx context.Context, workerIDs []string) ([]WorkerLocks, error) {
	if err := checkWorkerIDs(workerIDs); err != nil {
		return nil, fmt.Errorf("looking for locks: %w", err)
	}
	locks, err := admin.LockedBy(ctx, c.queries, workerIDs)
	if err != nil {
		return nil, fmt.Errorf("looking for the locks of %d workers: %w", len(workerIDs), err)
	}
	return converted(locks, workerLocks), nil
}

func checkWorkerIDs(ids []string) error {
	for i, id := range ids {
		if err := checkText(fmt.Sprintf("workerIDs[%d]", i), id, math.MaxInt); err != nil {
			return err
		}
	}
	return nil
}

// doing wraps err with what was being done to jobs.
func doing(err error, what string, ids []int64) error {
	switch {
	case err == nil:
		return nil
	case len(ids) == 1:
		return fmt.Errorf("%s job %d: %w", what, ids[0], err)
	}
	return fmt.Errorf("%s %d jobs: %w", what, len(ids), err)
}

// CleanupTask says what Client.Cleanup deletes.
type CleanupTask string

// The cleanup tasks, by the names that every Graphile Worker uses.
const (
	// GCTaskIdentifiers deletes task identifiers that have no job. It keeps those of the
	// client's own worker and of registered workers that list their tasks, since workers
	// may have cached them; list the tasks of other workers in CleanupOptions.KeepTasks.
	GCTaskIdentifiers CleanupTask = "GC_TASK_IDENTIFIERS"
	// GCJobQueues deletes queues that have no job and are not locked.
	GCJobQueues CleanupTask = "GC_JOB_QUEUES"
	// DeletePermafailedJobs deletes jobs that have permanently failed. You may
	// still want to look at them, so it is not done by default.
	DeletePermafailedJobs CleanupTask = "DELETE_PERMAFAILED_JOBS"
)

// ErrCleanupBusy is returned when a cleanup gave up because of an open transaction that has
// added jobs: waiting for it would have blocked all other adds. Trying again later is safe.
var ErrCleanupBusy = admin.ErrBusy

// CleanupOptions say what Client.Cleanup deletes.
type CleanupOptions struct {
	// Tasks are the cleanup tasks to run. Empty means GCTaskIdentifiers and GCJobQueues.
	Tasks []CleanupTask
	// KeepTasks are task identifiers that are kept, whether or not they have
	// jobs.
	KeepTasks []string
	// DryRun changes nothing: the result says what would be deleted.
	DryRun bool
}

// CleanupResult is what a cleanup deleted, or would delete. A dry run does not count tasks
// and queues that would only lose their last jobs by the deletion of failed jobs.
type CleanupResult struct {
	// FailedJobs is the number of permanently failed jobs.
	FailedJobs int64
	// Tasks are task identifiers, sorted.
	Tasks []string
	// Queues are names of queues, sorted.
	Queues []string
}

// Cleanup deletes what is no longer used. It can run at any time, while workers run and jobs
// are added: adds wait for a moment, and the cleanup gives up with ErrCleanupBusy rather
// than block them for long. On an error the result is what was deleted before it.
//
// The client of a Worker (Worker.Client, Job.Client) keeps that worker's tasks.
func (c *Client) Cleanup(ctx context.Context, options CleanupOptions) (CleanupResult, error) {
	what := admin.Cleanup{DryRun: options.DryRun, Keep: slices.Concat(c.ownTasks, options.KeepTasks)}
	for i, task := range options.Tasks {
		switch task {
		case GCTaskIdentifiers, GCJobQueues, DeletePermafailedJobs:
			what.Tasks = append(what.Tasks, string(task))
		default:
			return CleanupResult{}, fmt.Errorf("cleaning up: %w", problem(fmt.Sprintf("CleanupOptions.Tasks[%d]", i),
				"is %q: it can be %s, %s or %s", task, GCTaskIdentifiers, GCJobQueues, DeletePermafailedJobs))
		}
	}
	if len(what.Tasks) == 0 {
		what.Tasks = []string{admin.GCTaskIdentifiers, admin.GCJobQueues}
	}
	for i, task := range options.KeepTasks {
		if err := checkText(fmt.Sprintf("CleanupOptions.KeepTasks[%d]", i), task, math.MaxInt); err != nil {
			return CleanupResult{}, fmt.Errorf("cleaning up: %w", err)
		}
	}
	if err := c.reach(ctx); err != nil {
		return CleanupResult{}, fmt.Errorf("cleaning up: %w", err)
	}
	result, err := admin.CleanUp(ctx, c.pool, c.statements, c.queries, what)
	if err == nil && !options.DryRun {
		err = c.actions.Note(ctx, c.queries, recording.Action{Kind: string(history.ActionCleanup), What: result})
	}
	if err != nil {
		return CleanupResult(result), fmt.Errorf("cleaning up: %w", err)
	}
	return CleanupResult(result), nil
}
