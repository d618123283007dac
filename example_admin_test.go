package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

// Failed jobs run again with all their attempts.
func ExampleClient_RescheduleJobs() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	job, err := client.AddJob(ctx, gworker.JobSpec{Task: "send_email"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.PermanentlyFailJobs(ctx, []int64{job.ID}, "no such address"); err != nil {
		log.Fatal(err)
	}

	filter := gworker.JobFilter{States: []gworker.JobState{gworker.StateFailed}, Tasks: []string{"send_email"}}
	for {
		page, err := client.ListJobs(ctx, filter)
		if err != nil {
			log.Fatal(err)
		}
		var ids []int64
		for _, job := range page.Jobs {
			fmt.Println(job.ID, job.State, job.LastError)
			ids = append(ids, job.ID)
		}
		result, err := client.RescheduleJobs(ctx, ids, gworker.RescheduleOptions{RunAt: new(time.Time), Attempts: new(int)})
		if err != nil {
			log.Fatal(err)
		}
		for _, job := range result.Jobs {
			fmt.Println(job.ID, job.State, job.Attempts)
		}
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			break
		}
	}
	stats, err := client.Stats(ctx, gworker.StatsOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Failed, "failed,", stats.Ready, "ready")
	// Output:
	// 1 failed no such address
	// 1 ready 0
	// 0 failed, 1 ready
}

// A job is cancelled while it runs. Its handler hears of it through its context,
// and learns the reason from the context's cause.
func ExampleClient_Cancel() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	databaseURL, drop := testdb.Example() // postgres://localhost/app
	defer drop()

	started := make(chan int64)
	failed := make(chan error, 1)
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{gworker.NewTask("import", func(ctx context.Context, job *gworker.Job[any]) error {
			started <- job.ID
			<-ctx.Done() // work that heeds its context
			if cause := context.Cause(ctx); errors.Is(cause, gworker.ErrJobCancelled) {
				fmt.Println("the handler hears:", cause)
			}
			return ctx.Err()
		})},
		Observers: []func(event.Event){func(e event.Event) {
			if e, ok := e.(event.JobPermanentlyFailed); ok {
				failed <- e.Err
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()

	// Any process may do this:
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := client.AddJob(ctx, gworker.JobSpec{Task: "import"}); err != nil {
		log.Fatal(err)
	}
	result, err := client.Cancel(ctx, <-started, "wrong file")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("state:", result.State)
	<-failed // the row says now: wrong file

	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// state: requested
	// the handler hears: the job was cancelled: wrong file
}
