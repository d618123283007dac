package gworker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

type Document struct {
	ID      int `json:"id"`
	Version int `json:"version"`
}

// indexLater debounces: the index is made ten seconds after the last change.
func indexLater(ctx context.Context, jobs gworker.JobAdder, d Document) error {
	_, err := jobs.AddJob(ctx, gworker.JobSpec{
		Task:    "index_document",
		Payload: d,
		Key:     fmt.Sprintf("index document %d", d.ID),
		KeyMode: gworker.KeyReplace, // the default
		RunAt:   time.Now().Add(10 * time.Second),
	})
	return err
}

// reportSoon throttles: however often it is called, there is one report in five
// minutes, on the newest payload.
func reportSoon(ctx context.Context, jobs gworker.JobAdder, d Document) error {
	_, err := jobs.AddJob(ctx, gworker.JobSpec{
		Task:    "report_document",
		Payload: d,
		Key:     fmt.Sprintf("report document %d", d.ID),
		KeyMode: gworker.KeyPreserveRunAt,
		RunAt:   time.Now().Add(5 * time.Minute),
	})
	return err
}

// notifyTogether collects: what comes while a job waits is run by that job.
func notifyTogether(ctx context.Context, jobs gworker.JobAdder, userID int, message string) error {
	_, err := jobs.AddJob(ctx, gworker.JobSpec{
		Task:    "notify",
		Payload: []string{message}, // an array joins the array that waits
		Key:     fmt.Sprintf("notify user %d", userID),
		KeyMode: gworker.KeyPreserveRunAt,
		RunAt:   time.Now().Add(time.Minute),
	})
	return err
}

// Debounce: of several adds in a short time, the last one counts.
func Example_debounce() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	for version := range 3 {
		if err := indexLater(ctx, client, Document{ID: 7, Version: version}); err != nil {
			log.Fatal(err)
		}
	}
	job, err := client.RemoveJob(ctx, "index document 7") // it is one job
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, replaced %d times\n", job.Payload, job.Revision)
	// Output: {"id":7,"version":2}, replaced 2 times
}

// Collect: payloads that are arrays are joined while the job waits.
func Example_collect() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	for _, message := range []string{"Ada liked your post", "Bob liked your post"} {
		if err := notifyTogether(ctx, client, 7, message); err != nil {
			log.Fatal(err)
		}
	}
	job, err := client.RemoveJob(ctx, "notify user 7")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(job.Payload))
	// Output: ["Ada liked your post", "Bob liked your post"]
}
