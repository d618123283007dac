package gworker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gworker/gworker"
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
