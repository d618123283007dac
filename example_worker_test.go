package gworker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"testing/fstest"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
)

type Email struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
}

func sendEmail(_ context.Context, job *gworker.Job[Email]) error {
	fmt.Printf("%q to %s, attempt %d\n", job.Payload.Subject, job.Payload.To, job.Attempts)
	return nil
}

// A job is added and run. A service calls Run in place of RunOnce: it goes on
// until its context ends.
func Example() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example() // postgres://localhost/app
	defer drop()

	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	_, err = client.AddJob(ctx, gworker.JobSpec{
		Task:    "send_email",
		Payload: Email{To: "ada@example.com", Subject: "The engine runs"},
	})
	if err != nil {
		log.Fatal(err)
	}

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks:       []gworker.Task{gworker.NewTask("send_email", sendEmail)},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: "The engine runs" to ada@example.com, attempt 1
}

// A handler reaches its job, a logger that names the job, and a client: here it
// adds the job that comes next.
func ExampleNewTask() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	type Order struct{ ID int }
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks: []gworker.Task{
			gworker.NewTask("pack", func(ctx context.Context, job *gworker.Job[Order]) error {
				job.Logger().Info("packing")
				fmt.Println("pack order", job.Payload.ID)
				_, err := job.Client().AddJob(ctx, gworker.JobSpec{Task: "ship", Payload: job.Payload})
				return err
			}),
			gworker.NewTask("ship", func(_ context.Context, job *gworker.Job[Order]) error {
				fmt.Println("ship order", job.Payload.ID)
				return nil
			}),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := worker.Client().AddJob(ctx, gworker.JobSpec{Task: "pack", Payload: Order{ID: 7}}); err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// pack order 7
	// ship order 7
}

// A SQL file's statements and its job's completion commit together.
func ExampleLoadTasksFS() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	// An embed.FS, as a rule. For a folder there is LoadTasks.
	files, err := gworker.LoadTasksFS(fstest.MapFS{
		"accounts/open.sql": {Data: []byte(`
			create table if not exists accounts (name text primary key);
			insert into accounts select current_setting('gworker.payload')::json ->> 'name';`)},
	})
	if err != nil {
		log.Fatal(err)
	}
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Tasks:       files.Tasks,
		Observers: []func(event.Event){func(e event.Event) {
			if e, ok := e.(event.JobCompleted); ok {
				fmt.Println("done:", e.Job.Task)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = worker.Client().AddJob(ctx, gworker.JobSpec{Task: "accounts/open", Payload: map[string]string{"name": "Ada"}})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: done: accounts/open
}

// Observers get every event of a worker: the place for metrics and alerts.
func ExampleConfig_observers() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()

	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: databaseURL,
		Concurrency: 1,
		Tasks: []gworker.Task{gworker.NewRawTask("print", func(context.Context, *gworker.RawJob) error {
			return errors.New("no paper")
		})},
		Observers: []func(event.Event){func(e event.Event) {
			switch e := e.(type) {
			case event.JobFailed:
				fmt.Printf("attempt %d of %d: %v\n", e.Job.Attempts, e.Job.MaxAttempts, e.Err)
			case event.JobPermanentlyFailed:
				fmt.Println("given up:", e.Err)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = worker.Client().AddJobs(ctx, []gworker.JobSpec{
		{Task: "print", Priority: 1},
		{Task: "print", Priority: 2, MaxAttempts: 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// attempt 1 of 25: no paper
	// given up: no paper
}

// Behind a proxy that pools transactions, statements are not prepared, and the
// listener and the heartbeat go past it.
func ExampleConfig_behindPgBouncer() {
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL:          os.Getenv("PGBOUNCER_URL"),
		ListenDatabaseURL:    os.Getenv("DATABASE_URL"),
		NoPreparedStatements: true,
		Tasks:                []gworker.Task{gworker.NewTask("send_email", sendEmail)},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// A cache is emptied when others change what it holds. See examples/listener
// for a whole program.
func ExampleListener() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	listener, err := gworker.NewListener(gworker.ListenerConfig{
		DatabaseURL: os.Getenv("DATABASE_URL"),
		Channels:    []string{"article_changed"},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = listener.Run(ctx, func(_ context.Context, batch gworker.ListenerBatch) {
		if batch.Gap { // anything may have changed unheard
			fmt.Println("forget everything")
			return
		}
		for _, n := range batch.Notifications {
			fmt.Println("forget article", n.Payload)
		}
	})
	if err != nil { // the end of ctx is none
		log.Print(err)
	}
}
