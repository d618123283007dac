package gworker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// sendEmailFromNode is the task of docs/from-node.md. The pool is the program's
// own: handlers are functions, and take what they need from what surrounds them.
func sendEmailFromNode(pool *pgxpool.Pool) gworker.Task {
	return gworker.NewTask("send_email", func(ctx context.Context, job *gworker.Job[Email]) error {
		job.Logger().Info("sending", "to", job.Payload.To)
		if _, err := pool.Exec(ctx, "insert into sent_emails (recipient) values ($1)", job.Payload.To); err != nil {
			return err
		}
		_, err := job.Client().AddJob(ctx, gworker.JobSpec{
			Task: "follow_up", Payload: job.Payload, RunAt: time.Now().AddDate(0, 0, 7),
		})
		return err
	})
}

// What a Node task does with its helpers, in Go.
func Example_fromNode() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "create table sent_emails (recipient text)"); err != nil {
		log.Fatal(err)
	}

	worker, err := gworker.NewWorker(gworker.Config{Pool: pool, Tasks: []gworker.Task{sendEmailFromNode(pool)}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := pool.Exec(ctx, `select graphile_worker.add_job('send_email', '{"to": "ada@example.com"}')`); err != nil {
		log.Fatal(err)
	}
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
	var sent, waiting string
	err = pool.QueryRow(ctx, "select (select recipient from sent_emails), (select task_identifier from graphile_worker.jobs)").Scan(&sent, &waiting)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent to", sent, "and waiting:", waiting)
	// Output: sent to ada@example.com and waiting: follow_up
}
