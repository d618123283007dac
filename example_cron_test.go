package gworker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// RegionReport is the payload of a task that cron starts.
type RegionReport struct {
	gworker.CronPayload
	Region string `json:"region"`
}

// A worker with a crontab and an item built in Go. Here it says when they are
// due; Run would add their jobs.
func ExampleCronConfig() {
	databaseURL, drop := testdb.Example() // postgres://localhost/app
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{
			gworker.NewTask("report", func(_ context.Context, job *gworker.Job[RegionReport]) error {
				fmt.Printf("report for %s, due %s\n", job.Payload.Region, job.Payload.Cron.Time)
				return nil
			}),
		},
		Cron: gworker.CronConfig{
			Crontab: "0 4 * * * report ?id=nightly&fill=1d {region: 'eu'}",
			Items: []gworker.CronItem{{
				Schedule:   "30 8 * * 1-5",
				TimeZone:   "Asia/Tokyo",
				Task:       "report",
				Identifier: "tokyo_morning",
				Payload:    RegionReport{Region: "jp"},
				Fill:       6 * time.Hour,
				Key:        "tokyo_report", // at most one of them waits
			}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer worker.Close()

	for _, entry := range worker.CronItems() {
		fmt.Println(entry.Identifier, entry.Next.Format("15:04 MST"))
	}
	// Output:
	// nightly 04:00 UTC
	// tokyo_morning 08:30 JST
}

// Items can come and go while the worker runs.
func ExampleWorker_AddCronItem() {
	databaseURL, drop := testdb.Example() // postgres://localhost/app
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{
			gworker.NewRawTask("poll", func(context.Context, *gworker.RawJob) error { return nil }),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer worker.Close()

	err = worker.AddCronItem(gworker.CronItem{
		Schedule: "*/5 * * * *", Task: "poll", Identifier: "poll_customer_7",
		Payload: map[string]int{"customer": 7},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(worker.CronItems()), worker.RemoveCronItem("poll_customer_7"), len(worker.CronItems()))
	// Output: 1 true 0
}

// A crontab can be read without a worker, to check it or to show when its
// entries run. Summer time ends on 25 October 2026 in Paris.
func ExampleParseCrontab() {
	items, err := gworker.ParseCrontab(`
CRON_TZ=Europe/Paris
30 2 * * * backup
61 * * * * broken
`)
	fmt.Println(err)
	for _, item := range items {
		times, err := item.Next(time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC), 2)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(item.Identifier, times)
	}
	// Output:
	// line 4: minute: 61 is out of range: it can be 0 to 59
	// backup [2026-10-25 02:30:00 +0200 CEST 2026-10-26 02:30:00 +0100 CET]
}
