// Command transaction adds a job in the transaction that stores the order that the job
// is about: either both exist, or neither.
//
//	DATABASE_URL=postgres://localhost/test go run ./examples/transaction
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// Confirmation is the payload of confirm_order jobs.
type Confirmation struct {
	OrderID int64 `json:"order_id"`
}

func main() {
	if err := run(context.Background(), os.Getenv("DATABASE_URL")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, databaseURL string) error {
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		return err
	}
	if err := client.Migrate(ctx); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, `create table if not exists orders (
		id bigint generated always as identity primary key, item text not null, confirmed boolean not null default false)`); err != nil {
		return err
	}

	errCardRefused := errors.New("card refused")
	for _, payment := range []error{nil, errCardRefused} {
		err := placeOrder(ctx, pool, client, "tea", payment)
		if err != nil && !errors.Is(err, errCardRefused) {
			return err
		}
	}

	worker, err := gworker.NewWorker(gworker.Config{
		Pool: pool,
		Tasks: []gworker.Task{
			gworker.NewTask("confirm_order", func(ctx context.Context, job *gworker.Job[Confirmation]) error {
				_, err := pool.Exec(ctx, "update orders set confirmed = true where id = $1", job.Payload.OrderID)
				return err
			}),
		},
	})
	if err != nil {
		return err
	}
	if err := worker.RunOnce(ctx); err != nil {
		return err
	}
	var orders, confirmed int
	if err := pool.QueryRow(ctx, "select count(*), count(*) filter (where confirmed) from orders").Scan(&orders, &confirmed); err != nil {
		return err
	}
	fmt.Printf("%d orders, %d confirmed\n", orders, confirmed)
	return nil
}

// placeOrder stores an order together with its job. If the payment fails,
// neither exists.
func placeOrder(ctx context.Context, pool *pgxpool.Pool, client *gworker.Client, item string, payment error) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var id int64
		if err := tx.QueryRow(ctx, "insert into orders (item) values ($1) returning id", item).Scan(&id); err != nil {
			return err
		}
		if _, err := client.WithTx(tx).AddJob(ctx, gworker.JobSpec{
			Task: "confirm_order", Payload: Confirmation{OrderID: id},
		}); err != nil {
			return err
		}
		return payment
	})
}
