// Command minimal adds a job and runs it.
//
//	DATABASE_URL=postgres://localhost/test go run ./examples/minimal
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/gworker/gworker"
)

// Email is the payload of send_email jobs.
type Email struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
}

func sendEmail(_ context.Context, job *gworker.Job[Email]) error {
	fmt.Printf("job %d, attempt %d: %q to %s\n", job.ID, job.Attempts, job.Payload.Subject, job.Payload.To)
	return nil
}

func main() {
	if err := run(context.Background(), os.Getenv("DATABASE_URL")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, databaseURL string) error {
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Migrate(ctx); err != nil {
		return err
	}
	if _, err := client.AddJob(ctx, gworker.JobSpec{
		Task:    "send_email",
		Payload: Email{To: "ada@example.com", Subject: "The engine runs"},
	}); err != nil {
		return err
	}

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks:       []gworker.Task{gworker.NewTask("send_email", sendEmail)},
	})
	if err != nil {
		return err
	}
	return worker.RunOnce(ctx) // Run(ctx) goes on until ctx ends
}
