package gworker_test

import (
	"context"
	"log"
	"time"

	"github.com/gworker/gworker"
)

// The flags that are used up for now, from wherever the program keeps that.
type quota struct{}

func (quota) Exhausted(context.Context) ([]string, error) { return nil, nil }

func callAPI(context.Context, *gworker.Job[Document]) error { return nil }

// A worker without a graphics card, in Europe, that asks which flags are used up
// at the moment, and calls an API by two jobs at once.
func ExampleConfig_flags() {
	var limiter quota
	worker, err := gworker.NewWorker(gworker.Config{
		ForbiddenFlags: []string{"gpu"}, // a job with any of these is left alone
		AcceptedFlags:  []string{"eu"},  // if there are any, a job needs at least one
		ForbiddenFlagsFunc: func(ctx context.Context) ([]string, error) {
			return limiter.Exhausted(ctx)
		},
		Tasks: []gworker.Task{
			gworker.NewTask("call_api", callAPI).With(gworker.TaskOptions{Concurrency: 2}),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, client := context.Background(), worker.Client()
	if _, err := client.AddJob(ctx, gworker.JobSpec{Task: "render", Flags: []string{"gpu"}}); err != nil {
		log.Fatal(err)
	}
}

// Short jobs: claimed a hundred at a time, fewer claims while there is little to
// do, and outcomes that are stored in larger groups.
func ExampleLocalQueueConfig() {
	worker, err := gworker.NewWorker(gworker.Config{
		Concurrency: 10,
		LocalQueue: gworker.LocalQueueConfig{
			Size:         100, // jobs a claim
			RefetchDelay: gworker.RefetchDelayConfig{Duration: 200 * time.Millisecond, Threshold: 10},
		},
		CompletionDelay: 50 * time.Millisecond,
		FailureDelay:    50 * time.Millisecond,
		Tasks:           []gworker.Task{gworker.NewTask("call_api", callAPI)},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Println(worker.ID())
}

// A clock that a simulation sets.
type simulation struct{ at time.Time }

func (s *simulation) Now() time.Time { return s.at }

// A worker of a simulation goes by its clock.
func ExampleConfig_now() {
	simulated := &simulation{at: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	worker, err := gworker.NewWorker(gworker.Config{
		Now:   func() time.Time { return simulated.Now() },
		Tasks: []gworker.Task{gworker.NewTask("call_api", callAPI)},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Println(worker.ID())
}
