//go:build unix

package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// recorder writes what handlers report to the oracle. Each handler waits until its own
// record is stored; several records share a round trip, so that recording a run costs less
// than the run.
type recorder struct {
	pool    *pgxpool.Pool
	records chan *record
	stopped chan struct{}
}

// A record is one statement and its result.
type record struct {
	sql    string
	args   []any
	result func(pgx.Row) error
	done   chan error
}

func newRecorder(pool *pgxpool.Pool) *recorder {
	r := &recorder{pool: pool, records: make(chan *record, concurrency), stopped: make(chan struct{})}
	go r.loop()
	return r
}

// close ends the writing, after the last handler.
func (r *recorder) close() {
	close(r.records)
	<-r.stopped
}

func (r *recorder) loop() {
	defer close(r.stopped)
	for first := range r.records {
		group := []*record{first}
		for more := true; more; {
			select {
			case next, ok := <-r.records:
				if more = ok; ok {
					group = append(group, next)
				}
			default:
				more = false
			}
		}
		r.write(group)
	}
}

// write sends a group in one transaction. Its end is the end of all.
func (r *recorder) write(group []*record) {
	var batch pgx.Batch
	for _, one := range group {
		query := batch.Queue(one.sql, one.args...)
		if one.result != nil {
			query.QueryRow(one.result)
		}
	}
	err := r.pool.SendBatch(context.Background(), &batch).Close()
	for _, one := range group {
		one.done <- err
	}
}

// begin records the start of a run.
func (r *recorder) begin(args ...any) (id int64, err error) {
	one := &record{sql: beginRun, args: args, done: make(chan error, 1)}
	one.result = func(row pgx.Row) error { return row.Scan(&id) }
	r.records <- one
	return id, <-one.done
}

// end records the end of a run.
func (r *recorder) end(id int64, outcome string) error {
	one := &record{sql: endRun, args: []any{id, outcome}, done: make(chan error, 1)}
	r.records <- one
	return <-one.done
}

const (
	beginRun = `insert into runs (n, job_id, queue, attempt, worker, worker_id, locked_at)
		values ($1, $2, $3, $4, $5, $6, $7) returning id`
	endRun = "update runs set ended_at = clock_timestamp(), outcome = $2 where id = $1"
)
