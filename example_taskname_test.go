package gworker_test

import (
	"context"
	"fmt"
	"log"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// One name for both sides: a job that is added with another payload's type does
// not compile.
const WelcomeEmail gworker.TaskName[Email] = "welcome_email"

func ExampleTaskName() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{
			WelcomeEmail.Task(func(_ context.Context, job *gworker.Job[Email]) error {
				fmt.Println("welcome,", job.Payload.To)
				return nil
			}),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	spec := WelcomeEmail.Spec(Email{To: "ada@example.com"})
	spec.Queue = "emails"
	if _, err := worker.Client().AddJob(ctx, spec); err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: welcome, ada@example.com
}
