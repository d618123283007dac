package gworker

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gworker/gworker/internal/admin"
)

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
	if err != nil {
		return CleanupResult(result), fmt.Errorf("cleaning up: %w", err)
	}
	return CleanupResult(result), nil
}
