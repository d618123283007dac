package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

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
