package gworker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

type PaymentEvent struct {
	EventID string `json:"event_id"`
	Cents   int    `json:"cents"`
}

// A webhook that is delivered again within a day is ignored, also when its job has long
// completed.
func Example_unique() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	handle := gworker.NewTask("handle_payment", func(_ context.Context, job *gworker.Job[PaymentEvent]) error {
		fmt.Printf("handled %s\n", job.Payload.EventID)
		return nil
	})

	for range 2 {
		client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
		if err != nil {
			log.Fatal(err)
		}
		event := PaymentEvent{EventID: "evt_7", Cents: 1200}
		job, err := client.AddJob(ctx, gworker.JobSpec{
			Task:      "handle_payment",
			Payload:   event,
			UniqueFor: 24 * time.Hour,
			UniqueKey: event.EventID,
		})
		client.Close()
		if err != nil {
			log.Fatal(err)
		}
		if d := job.Duplicate; d != nil {
			fmt.Printf("job %d is %s: nothing is added\n", job.ID, d.State)
		}

		worker, err := gworker.NewWorker(gworker.Config{DatabaseURL: databaseURL, Tasks: []gworker.Task{handle}})
		if err != nil {
			log.Fatal(err)
		}
		err = worker.RunOnce(ctx)
		worker.Close()
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// handled evt_7
	// job 1 is gone: nothing is added
}
