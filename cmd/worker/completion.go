package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

// completionTimeout is how long a shell waits for values from the database. After an error
// it gets none, since a completion cannot show errors.
const completionTimeout = 2 * time.Second

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// complete makes shells complete a flag's values.
func complete(cmd *cobra.Command, flag string, values completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, values); err != nil {
		panic(err) // the flag is not defined
	}
}

// words completes fixed values.
func words(values ...string) completion {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// fromDatabase completes the values that read returns.
func fromDatabase(shared *sharedFlags, read func(context.Context, *gworker.Client) ([]string, error)) completion {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		client, err := shared.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer client.Close()
		values, err := read(ctx, client)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeTasks completes the tasks that have jobs.
func completeTasks(shared *sharedFlags) completion {
	return fromDatabase(shared, func(ctx context.Context, client *gworker.Client) ([]string, error) {
		stats, err := client.Stats(ctx, gworker.StatsOptions{})
		var tasks []string
		for _, task := range stats.Tasks {
			tasks = append(tasks, task.Task)
		}
		return tasks, err
	})
}

// completeQueues completes named queues.
func completeQueues(shared *sharedFlags) completion {
	return fromDatabase(shared, func(ctx context.Context, client *gworker.Client) ([]string, error) {
		page, err := client.Queues(ctx, gworker.QueueFilter{Limit: 1000})
		var queues []string
		for _, queue := range page.Queues {
			queues = append(queues, queue.Name)
		}
		return queues, err
	})
}

// completeWorkers completes ids of workers.
func completeWorkers(shared *sharedFlags) completion {
	return fromDatabase(shared, func(ctx context.Context, client *gworker.Client) ([]string, error) {
		workers, err := client.Workers(ctx)
		var ids []string
		for _, worker := range workers {
			ids = append(ids, worker.ID)
		}
		return ids, err
	})
}

// completeJobIDs completes the ids of the newest jobs in the states, or in all.
func completeJobIDs(shared *sharedFlags, states ...gworker.JobState) completion {
	return fromDatabase(shared, func(ctx context.Context, client *gworker.Client) ([]string, error) {
		page, err := client.ListJobs(ctx, gworker.JobFilter{States: states, Order: gworker.OrderNewestFirst})
		var ids []string
		for _, job := range page.Jobs {
			ids = append(ids, cobra.CompletionWithDesc(strconv.FormatInt(job.ID, 10), cell(job.Task, 40)+", "+string(job.State)))
		}
		return ids, err
	})
}

// stateWords are the states of jobs, as texts.
func stateWords() []string {
	return []string{
		string(gworker.StateScheduled), string(gworker.StateReady), string(gworker.StateBlocked),
		string(gworker.StateRunning), string(gworker.StateRetrying), string(gworker.StateFailed),
	}
}
