package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/history"
)

// configureGworker is the one place where the variants of gworker differ.
func configureGworker(peer string, config *gworker.Config) {
	switch peer {
	case "gworker-locked":
		config.HoldTime = new(time.Duration)
	case "gworker-off":
		config.History = history.Off
	}
}

// variantsDiffer says that configureGworker makes a difference.
const variantsDiffer = true

func workGworker(o order, stop <-chan struct{}) error {
	t := newTally(o)
	config := gworker.Config{
		DatabaseURL: o.URL, Concurrency: o.Concurrency,
		Tasks: []gworker.Task{gworker.NewTask(taskName, func(ctx context.Context, job *gworker.Job[payload]) error {
			return t.handle(ctx, job.Payload, job.Attempts)
		})},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	configureGworker(o.Peer, &config)
	worker, err := gworker.NewWorker(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := worker.Subscribe(gworker.SubscriptionConfig{Types: []event.Event{event.WorkerStarted{}}})
	go func() {
		if _, ok := <-started.Events(); ok { // closed: it did not come so far
			say(reply{Event: "ready", At: time.Now().UnixNano()})
		}
		started.Close() // jobs are run without anybody who is told of each
	}()
	go func() {
		<-stop
		cancel()
	}()
	if err := worker.Run(ctx); err != nil {
		return err
	}
	t.end()
	return nil
}

func addGworker(o order, _ <-chan struct{}) error {
	ctx := context.Background()
	pool, err := adderPool(ctx, o)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		return err
	}
	defer client.Close()
	return addAll(o, func(ctx context.Context, first int64) error {
		if !o.InTx {
			return addTo(ctx, client, first, o.PerCall)
		}
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			return addTo(ctx, client.WithTx(tx), first, o.PerCall)
		})
	})
}

func addTo(ctx context.Context, to gworker.JobAdder, first int64, jobs int) error {
	if jobs == 1 {
		_, err := to.AddJob(ctx, gworker.JobSpec{Task: taskName, Payload: payload{N: first}})
		return err
	}
	specs := make([]gworker.JobSpec, jobs)
	for i := range specs {
		specs[i] = gworker.JobSpec{Task: taskName, Payload: payload{N: first + int64(i)}}
	}
	_, err := to.AddJobs(ctx, specs)
	return err
}

// adderPool is one with a connection an adder, all of them connected.
func adderPool(ctx context.Context, o order) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(o.Adders)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	var held []*pgxpool.Conn
	for range o.Adders {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		held = append(held, conn)
	}
	for _, conn := range held {
		conn.Release()
	}
	return pool, nil
}
