package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/gworker/gworker/internal/dbgen"
)

// workRaw does to the jobs what a worker does, and runs nothing: this is what
// the server and the driver can give. A few connections each take a batch, and
// the next when it is gone, until one finds nothing.
func workRaw(o order, stop <-chan struct{}) error {
	ctx := context.Background()
	t := newTally(o)
	loop := rawLocked
	if o.Peer == "raw-held" {
		loop = rawHeld
	}
	conns := make([]*pgx.Conn, o.RawConnections)
	for i := range conns {
		conn, err := pgx.Connect(ctx, o.URL)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		conns[i] = conn
	}
	say(reply{Event: "ready", At: time.Now().UnixNano()})
	var stopped atomic.Bool
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
			stopped.Store(true)
		case <-ended:
		}
	}()
	t.first.Store(time.Now().UnixNano())
	close(t.begun)
	var g errgroup.Group
	for i, conn := range conns {
		g.Go(func() error { return loop(ctx, conn, fmt.Sprintf("gworker_raw%d", i), o.RawBatch, t, &stopped) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	<-stop // the end of the jobs is seen and told by the other side of the pipe
	t.end()
	return nil
}

// rawLocked is the worker's own claim and its completion, one after the other.
func rawLocked(ctx context.Context, conn *pgx.Conn, id string, batch int, t *tally, stopped *atomic.Bool) error {
	queries := dbgen.New(conn)
	for !stopped.Load() {
		jobs, err := queries.ClaimJobs(ctx, dbgen.ClaimJobsParams{Tasks: []string{taskName}, MaxJobs: int32(batch), WorkerID: id})
		if err != nil {
			return fmt.Errorf("claiming: %w", err)
		}
		if len(jobs) == 0 || jobs[0].ID == 0 {
			return nil
		}
		t.started.Add(int64(len(jobs)))
		done := dbgen.CompleteJobsParams{
			WorkerID: id, Ids: make([]int64, len(jobs)), Attempts: make([]int32, len(jobs)),
			LockedAts: make([]pgtype.Timestamptz, len(jobs)),
		}
		for i, job := range jobs {
			done.Ids[i], done.Attempts[i], done.LockedAts[i] = job.ID, int32(job.Attempts), pgtype.Timestamptz(job.LockedAt)
		}
		gone, err := queries.CompleteJobs(ctx, done)
		if err != nil {
			return fmt.Errorf("completing: %w", err)
		}
		if len(gone) != len(jobs) {
			return fmt.Errorf("%d of %d jobs were completed", len(gone), len(jobs))
		}
		t.finished.Add(int64(len(jobs)))
	}
	return nil
}

const (
	rawTaskID = `select id from graphile_worker._private_tasks where identifier = $1`
	rawHold   = `select id, payload, attempts, max_attempts, priority, run_at, job_queue_id, key
		from graphile_worker._private_jobs
		where is_available and run_at <= now() and task_id = any ($1::int[])
		order by priority, run_at limit $2 for update skip locked`
	rawDelete = `delete from graphile_worker._private_jobs where id = any ($1::bigint[])`
)

// rawHeld keeps a transaction open between the two, and sends the deletion and
// the next select in one go.
func rawHeld(ctx context.Context, conn *pgx.Conn, _ string, size int, t *tally, stopped *atomic.Bool) error {
	var task int32
	if err := conn.QueryRow(ctx, rawTaskID, taskName).Scan(&task); err != nil {
		return fmt.Errorf("finding the task: %w", err)
	}
	var held []int64
	for {
		batch := &pgx.Batch{}
		if len(held) > 0 {
			batch.Queue(rawDelete, held)
			batch.Queue("commit")
		}
		last := stopped.Load()
		if !last {
			batch.Queue("begin")
			batch.Queue(rawHold, []int32{task}, size)
		}
		if batch.Len() == 0 {
			return nil
		}
		finished, next, err := rawExchange(ctx, conn, batch, held, last)
		if err != nil {
			return err
		}
		t.finished.Add(finished)
		t.started.Add(int64(len(next)))
		if held = next; len(held) == 0 {
			if last {
				return nil
			}
			_, err := conn.Exec(ctx, "commit")
			return err
		}
	}
}

func rawExchange(ctx context.Context, conn *pgx.Conn, batch *pgx.Batch, held []int64, last bool) (finished int64, next []int64, err error) {
	results := conn.SendBatch(ctx, batch)
	defer func() { err = errors.Join(err, results.Close()) }()
	if len(held) > 0 {
		tag, err := results.Exec()
		if err != nil {
			return 0, nil, fmt.Errorf("deleting: %w", err)
		}
		if finished = tag.RowsAffected(); finished != int64(len(held)) {
			return 0, nil, fmt.Errorf("%d of %d jobs were deleted", finished, len(held))
		}
		if _, err := results.Exec(); err != nil {
			return 0, nil, fmt.Errorf("committing: %w", err)
		}
	}
	if last {
		return finished, nil, nil
	}
	if _, err := results.Exec(); err != nil {
		return 0, nil, fmt.Errorf("beginning: %w", err)
	}
	rows, err := results.Query()
	if err != nil {
		return 0, nil, fmt.Errorf("holding: %w", err)
	}
	next, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (int64, error) {
		var (
			id            int64
			payload       []byte
			attempts, max int16
			priority      int16
			runAt         time.Time
			queue         *int32
			key           *string
		)
		err := row.Scan(&id, &payload, &attempts, &max, &priority, &runAt, &queue, &key)
		return id, err
	})
	if err != nil {
		return 0, nil, fmt.Errorf("holding: %w", err)
	}
	return finished, next, nil
}
