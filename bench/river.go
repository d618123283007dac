package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type riverArgs struct{ payload }

func (riverArgs) Kind() string { return taskName }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	tally *tally
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	return w.tally.handle(ctx, job.Args.payload, job.Attempt)
}

// riverSlots are the workers of River's variants. River has no default for it;
// 100 is what its documentation sets.
func riverSlots(peer string) int {
	if peer == "river-2000" {
		return 2000
	}
	return 100
}

func workRiver(o order, stop <-chan struct{}) error {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return err
	}
	config.MaxConns = int32(o.Concurrency + 4)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	t := newTally(o)
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{tally: t})
	settings := &river.Config{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1})),
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverSlots(o.Peer)}},
		Workers: workers,
	}
	if o.Peer == "river-2000" { // what River's own benchmark sets
		settings.FetchCooldown, settings.FetchPollInterval = 2*time.Millisecond, 20*time.Millisecond
	}
	client, err := river.NewClient(riverpgxv5.New(pool), settings)
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	say(reply{Event: "ready", At: time.Now().UnixNano()})
	<-stop
	if err := client.Stop(ctx); err != nil {
		return err
	}
	t.end()
	return nil
}

func addRiver(o order, _ <-chan struct{}) error {
	ctx := context.Background()
	pool, err := adderPool(ctx, o)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		return err
	}
	return addAll(o, func(ctx context.Context, first int64) error {
		if o.InTx {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				_, err := client.InsertTx(ctx, tx, riverArgs{payload{N: first}}, nil)
				return err
			})
		}
		if o.PerCall == 1 {
			_, err := client.Insert(ctx, riverArgs{payload{N: first}}, nil)
			return err
		}
		many := make([]river.InsertManyParams, o.PerCall)
		for i := range many {
			many[i].Args = riverArgs{payload{N: first + int64(i)}}
		}
		_, err := client.InsertMany(ctx, many)
		return err
	})
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}
