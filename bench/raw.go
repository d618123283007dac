package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/gworker/gworker/internal/dbgen"
)

// rawBatches are the most that a claim of gworker takes ahead of the slots.
var rawBatches = map[string]int{"raw-locked": 500, "raw-held": 2000, "raw-select": 2000}

// workRaw does to the jobs what a worker does, and runs nothing: this is what
// the server and the driver can give. A few connections each take a batch, and
// the next when it is gone, until one finds nothing.
func workRaw(o order, stop <-chan struct{}) error {
	ctx := context.Background()
	t := newTally(o)
	batch := o.RawBatch
	if batch == 0 {
		batch = rawBatches[o.Peer]
	}
	loop := map[string]func(context.Context, *pgx.Conn, string, int, *tally, *atomic.Bool) error{
		"raw-locked": rawLocked, "raw-held": rawHeld, "raw-select": rawSelected,
	}[o.Peer]
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
		g.Go(func() error { return loop(ctx, conn, fmt.Sprintf("gworker_raw%d", i), batch, t, &stopped) })
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
		jobs, err := queries.ClaimJobs(ctx, dbgen.ClaimJobsParams{Tasks: []string{taskName}, MaxJobs: int32(batch), MaxBytes: 16 << 20, WorkerID: id})
		if err != nil {
			return fmt.Errorf("claiming: %w", err)
		}
		if len(jobs) == 0 || jobs[0].ID == nil {
			return nil
		}
		t.started.Add(int64(len(jobs)))
		done := dbgen.CompleteJobsParams{
			WorkerID: id, Ids: make([]int64, len(jobs)), Attempts: make([]int32, len(jobs)),
			LockedAts: make([]time.Time, len(jobs)),
		}
		for i, job := range jobs {
			done.Ids[i], done.Attempts[i], done.LockedAts[i] = *job.ID, *job.Attempts, job.LockedAt.Time
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

// rawHeld keeps a transaction open between claim and completion, and sends the
// completion and the next claim in one go. The statements are the worker's own, or,
// for "raw-select", the least that could do: that one ignores named queues, and
// tells of the jobs nothing but what is needed to run them.
func rawHeld(ctx context.Context, conn *pgx.Conn, id string, size int, t *tally, stopped *atomic.Bool) error {
	return rawHold(ctx, conn, size, t, stopped, dbgen.CompleteHeldJobs, func(batch *pgx.Batch) {
		batch.Queue(dbgen.BeginHold, "60000")
		batch.Queue(dbgen.ClaimJobs, nil, nil, []string{taskName}, nil, int32(size), int64(16<<20), []string{}, id)
	})
}

const (
	rawTaskID = `select id from graphile_worker._private_tasks where identifier = $1`
	rawSelect = `select id, payload, attempts, max_attempts, priority, run_at, job_queue_id, key
		from graphile_worker._private_jobs
		where is_available and run_at <= now() and task_id = any ($1::int[])
		order by priority, run_at limit $2 for update skip locked`
	rawDelete = `delete from graphile_worker._private_jobs where id = any ($1::bigint[])`
)

func rawSelected(ctx context.Context, conn *pgx.Conn, _ string, size int, t *tally, stopped *atomic.Bool) error {
	var task int32
	if err := conn.QueryRow(ctx, rawTaskID, taskName).Scan(&task); err != nil {
		return fmt.Errorf("finding the task: %w", err)
	}
	return rawHold(ctx, conn, size, t, stopped, rawDelete, func(batch *pgx.Batch) {
		batch.Queue(rawSelect, []int32{task}, size)
	})
}

// rawHold is the loop of both: claim adds its statements to a batch, of which the
// last one's rows are the jobs, their ids first.
func rawHold(
	ctx context.Context, conn *pgx.Conn, size int, t *tally, stopped *atomic.Bool, complete string, claim func(*pgx.Batch),
) error {
	held := make([]int64, 0, size)
	for {
		batch, done := &pgx.Batch{}, int64(len(held))
		if done > 0 {
			batch.Queue(complete, held).Exec(func(tag pgconn.CommandTag) error {
				if tag.RowsAffected() != done {
					return fmt.Errorf("%d of %d jobs were deleted", tag.RowsAffected(), done)
				}
				return nil
			})
			batch.Queue("commit")
		}
		next := []int64{}
		last := stopped.Load()
		if !last {
			batch.Queue("begin")
			claim(batch)
			batch.QueuedQueries[batch.Len()-1].Query(func(rows pgx.Rows) (err error) {
				next, err = rawJobs(rows, held[:0])
				return err
			})
		}
		if batch.Len() == 0 {
			return nil
		}
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("completing %d jobs and claiming the next: %w", done, err)
		}
		t.finished.Add(done)
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

// rawJobs reads everything that a worker needs to know, and keeps the ids.
func rawJobs(rows pgx.Rows, ids []int64) ([]int64, error) {
	columns := rows.FieldDescriptions()
	into := make([]any, len(columns))
	var id *int64 // null: there was no job
	var payload []byte
	for i, column := range columns {
		switch column.DataTypeOID {
		case pgtype.Int8OID:
			into[i] = new(pgtype.Int8)
		case pgtype.Int4OID, pgtype.Int2OID:
			into[i] = new(pgtype.Int4)
		case pgtype.TimestamptzOID:
			into[i] = new(pgtype.Timestamptz)
		case pgtype.TextOID:
			into[i] = new(pgtype.Text)
		case pgtype.JSONOID, pgtype.JSONBOID:
			into[i] = &payload
		default:
			return nil, fmt.Errorf("a column %s of an unknown type", column.Name)
		}
	}
	into[0] = &id
	_, err := pgx.ForEachRow(rows, into, func() error {
		if id != nil {
			ids = append(ids, *id)
		}
		return nil
	})
	return ids, err
}
