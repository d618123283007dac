package gworker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// The later add with a key replaces the job that still waits.
func ExampleClient_AddJob() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	for _, minutes := range []int{5, 10} {
		job, err := client.AddJob(ctx, gworker.JobSpec{
			Task:    "remind",
			Payload: map[string]int{"after_minutes": minutes},
			RunAt:   time.Now().Add(time.Duration(minutes) * time.Minute),
			Queue:   "user 7", // one after another
			Key:     "reminder of user 7",
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("job %d, revision %d: %s\n", job.ID, job.Revision, job.Payload)
	}
	_, err = client.RemoveJob(ctx, "reminder of user 7")
	fmt.Println(err)
	_, err = client.RemoveJob(ctx, "reminder of user 7")
	fmt.Println(errors.Is(err, gworker.ErrJobNotFound))
	// Output:
	// job 1, revision 0: {"after_minutes":5}
	// job 1, revision 1: {"after_minutes":10}
	// <nil>
	// true
}

// Any number of jobs are added in one statement, all or none.
func ExampleClient_AddJobs() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	jobs, err := client.AddJobs(ctx, []gworker.JobSpec{{Task: "resize"}, {Task: "resize"}, {Task: "publish", Priority: 1}})
	fmt.Println(len(jobs), err)
	_, err = client.AddJobs(ctx, []gworker.JobSpec{{Task: "resize"}, {Task: "publish", Priority: 1 << 20}})
	fmt.Println(err)
	// Output:
	// 3 <nil>
	// adding 2 jobs: task "publish": specs[1].Priority is 1048576: it can be -32768 to 32767
}

// A job exists exactly if the transaction that adds it commits.
func ExampleClient_WithTx() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		log.Fatal(err)
	}

	outOfStock := errors.New("out of stock")
	for _, problem := range []error{nil, outOfStock} {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := client.WithTx(tx).AddJob(ctx, gworker.JobSpec{Task: "confirm_order"}); err != nil {
				return err
			}
			return problem // an error rolls back
		})
		if err != nil && !errors.Is(err, outOfStock) {
			log.Fatal(err)
		}
	}
	var jobs int
	if err := pool.QueryRow(ctx, "select count(*) from graphile_worker.jobs").Scan(&jobs); err != nil {
		log.Fatal(err)
	}
	fmt.Println(jobs, "job")
	// Output: 1 job
}

// The same for database/sql, with any PostgreSQL driver.
func ExampleClient_WithSQLTx() {
	ctx := context.Background()
	databaseURL, drop := testdb.Example()
	defer drop()
	db, err := sql.Open("pgx", databaseURL)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: databaseURL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback()
	job, err := client.WithSQLTx(tx).AddJob(ctx, gworker.JobSpec{Task: "confirm_order"})
	if err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("added", job.Task)
	// Output: added confirm_order
}
