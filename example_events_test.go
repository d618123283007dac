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

// A subscription is read at the reader's own pace; the worker never waits for it.
func ExampleWorker_Subscribe() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example() // postgres://localhost/app
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{gworker.NewTask("divide", func(_ context.Context, job *gworker.Job[int]) error {
			if job.Payload == 0 {
				return errors.New("division by zero")
			}
			return nil
		})},
	})
	if err != nil {
		log.Fatal(err)
	}
	sub := worker.Subscribe(gworker.SubscriptionConfig{
		Types: []event.Event{event.JobCompleted{}, event.JobFailed{}},
	})
	defer sub.Close()
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		for e := range sub.Events() { // until the worker has stopped
			switch e := e.(type) {
			case event.JobCompleted:
				fmt.Println("done:", string(e.Job.Payload))
			case event.JobFailed:
				fmt.Println("failed:", e.Err)
			}
		}
	}()

	for _, n := range []int{3, 0} {
		if _, err := worker.Client().AddJob(ctx, gworker.JobSpec{Task: "divide", Payload: n}); err != nil {
			log.Fatal(err)
		}
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	<-printed
	fmt.Println("dropped:", sub.Dropped())
	// Unordered output:
	// done: 3
	// failed: division by zero
	// dropped: 0
}

// Jobs are checked and completed on their way into the queue, in one place for
// the whole program.
func ExampleClientConfig_beforeAdd() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example() // postgres://localhost/app
	defer drop()

	client, err := gworker.NewClient(gworker.ClientConfig{
		DatabaseURL: databaseURL,
		BeforeAdd: []func(context.Context, *gworker.JobSpec) error{
			func(_ context.Context, spec *gworker.JobSpec) error {
				email, ok := spec.Payload.(Email)
				switch {
				case !ok:
					return fmt.Errorf("it takes an Email, not %T", spec.Payload)
				case email.To == "":
					return gworker.ErrAddSkipped // nobody to write to
				case email.Subject == "":
					email.Subject = "News"
					spec.Payload = email
				}
				return nil
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for _, payload := range []any{Email{To: "ada@example.com"}, Email{}, "ada@example.com"} {
		job, err := client.AddJob(ctx, gworker.JobSpec{Task: "send_email", Payload: payload})
		switch {
		case errors.Is(err, gworker.ErrAddSkipped):
			fmt.Println("skipped")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println("added", string(job.Payload))
		}
	}
	// Output:
	// added {"to":"ada@example.com","subject":"News"}
	// skipped
	// adding a job of task "send_email": BeforeAdd[0]: it takes an Email, not string
}
