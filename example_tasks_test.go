package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

// A task decides how often and how soon its jobs are tried again, and for how
// long they may run.
func ExampleTask_With() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	charge := gworker.NewTask("charge", func(_ context.Context, job *gworker.Job[int]) error {
		return errors.New("the bank does not answer")
	}).With(gworker.TaskOptions{
		Timeout:     10 * time.Second,
		MaxAttempts: 3,
		Backoff: func(in gworker.BackoffInput) time.Duration {
			return time.Duration(in.Attempt) * time.Minute
		},
	})
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks:       []gworker.Task{charge},
		Observers: []func(event.Event){func(e event.Event) {
			if e, ok := e.(event.JobFailed); ok {
				fmt.Println(e.Err, "- next try in a minute:", time.Until(e.NextRunAt) > 50*time.Second)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := worker.Client().AddJob(ctx, gworker.JobSpec{Task: "charge", Payload: 100}); err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: the bank does not answer - next try in a minute: true
}

// A handler puts its job off, or gives it up.
func ExampleSnooze() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Concurrency: 1,
		Tasks: []gworker.Task{gworker.NewTask("fetch", func(_ context.Context, job *gworker.Job[string]) error {
			switch job.Payload {
			case "busy":
				return gworker.Snooze(time.Minute) // the attempt does not count
			case "gone":
				return gworker.Discard(errors.New("404 not found")) // no further attempt
			}
			return nil
		})},
		Observers: []func(event.Event){func(e event.Event) {
			switch e := e.(type) {
			case event.JobSnoozed:
				fmt.Println("snoozed for", e.For)
			case event.JobPermanentlyFailed:
				fmt.Println("given up:", e.Err)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = worker.Client().AddJobs(ctx, []gworker.JobSpec{
		{Task: "fetch", Payload: "busy"}, {Task: "fetch", Payload: "gone"},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// snoozed for 1m0s
	// given up: 404 not found
}

// Only the elements that failed are tried again.
func ExampleNewBatchTask() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	notify := gworker.NewBatchTask("notify", func(_ context.Context, job *gworker.BatchJob[Email]) ([]error, error) {
		failures := make([]error, len(job.Payload))
		for i, email := range job.Payload {
			if email.To == "" {
				failures[i] = errors.New("nobody to send it to")
			}
		}
		return failures, nil
	})
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks:       []gworker.Task{notify},
		Observers: []func(event.Event){func(e event.Event) {
			var batch *gworker.BatchError
			if e, ok := e.(event.JobFailed); ok && errors.As(e.Err, &batch) {
				fmt.Printf("%d of %d failed: %s\n", len(batch.Failed), batch.Total, batch.Failed[0].Payload)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = worker.Client().AddJob(ctx, gworker.JobSpec{Task: "notify", Payload: []Email{
		{To: "ada@example.com", Subject: "one"}, {Subject: "two"},
	}})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: 1 of 2 failed: {"to":"","subject":"two"}
}

// Middleware is around every handler; interceptors decide before and after it.
func ExampleMiddleware() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	timed := func(next gworker.Handler) gworker.Handler {
		return func(ctx context.Context, job *gworker.RawJob) error {
			err := next(ctx, job)
			fmt.Println(job.Task, "returned:", err)
			return err
		}
	}
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks:       []gworker.Task{gworker.NewTask("send_email", sendEmail)},
		Middleware:  []gworker.Middleware{timed},
		BeforeRun: []func(context.Context, *gworker.RawJob) gworker.BeforeRunDecision{
			func(_ context.Context, job *gworker.RawJob) gworker.BeforeRunDecision {
				// Completed without a call of the handler.
				return gworker.BeforeRunDecision{Skip: job.Priority > 100}
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = worker.Client().AddJobs(ctx, []gworker.JobSpec{
		{Task: "send_email", Payload: Email{To: "ada@example.com", Subject: "now"}},
		{Task: "send_email", Payload: Email{To: "ada@example.com", Subject: "spam"}, Priority: 101},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// "now" to ada@example.com, attempt 1
	// send_email returned: <nil>
}

// The job is done exactly if the handler's own transaction commits.
func ExampleJob_CompleteTx() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "create table payments (cents int)"); err != nil {
		log.Fatal(err)
	}

	worker, err := gworker.NewWorker(gworker.Config{
		Pool: pool,
		Tasks: []gworker.Task{gworker.NewTask("pay", func(ctx context.Context, job *gworker.Job[int]) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "insert into payments values ($1)", job.Payload); err != nil {
					return err
				}
				return job.CompleteTx(ctx, tx)
			})
		})},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := worker.Client().AddJob(ctx, gworker.JobSpec{Task: "pay", Payload: 995}); err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	var payments, jobs int
	err = pool.QueryRow(ctx, "select (select count(*) from payments), (select count(*) from graphile_worker.jobs)").Scan(&payments, &jobs)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d payment, %d jobs left\n", payments, jobs)
	// Output: 1 payment, 0 jobs left
}

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
