package gworker_test

import (
	"context"
	"fmt"
	"log"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// WelcomeEmail is declared once, where both sides find it.
var WelcomeEmail = gworker.TaskDefinition[Email]{
	Name:        "welcome_email",
	MaxAttempts: 5,
	Priority:    10,
	KeyFunc:     func(e Email) string { return "welcome " + e.To }, // one for each address
}

func ExampleTaskDefinition() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{
			WelcomeEmail.Task(func(_ context.Context, job *gworker.Job[Email]) error {
				fmt.Printf("welcome, %s (priority %d)\n", job.Payload.To, job.Priority)
				return nil
			}),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 { // adding it twice makes one job
		if _, err := worker.Client().AddJob(ctx, WelcomeEmail.Spec(Email{To: "ada@example.com"})); err != nil {
			log.Fatal(err)
		}
	}
	urgent := WelcomeEmail.Spec(Email{To: "grace@example.com"})
	urgent.Priority = 0 // what the spec says counts
	if _, err := worker.Client().AddJob(ctx, urgent); err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// welcome, grace@example.com (priority 0)
	// welcome, ada@example.com (priority 10)
}
