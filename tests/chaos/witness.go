//go:build unix

package main

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/devpg"
)

//go:embed witness.sql
var witnessSQL string

// witness is a server that no fault touches. Handlers connect to it directly,
// so what they record is true whatever happens to the queue's database.
type witness struct {
	server *devpg.Server
	pool   *pgxpool.Pool
}

func startWitness(ctx context.Context) (*witness, error) {
	s, err := devpg.Start(ctx, devpg.Options{Fast: true, IgnoreEnvironment: true, Database: "witness"})
	if err != nil {
		return nil, err
	}
	w := &witness{server: s}
	if w.pool, err = pgxpool.New(ctx, w.url()); err == nil {
		_, err = w.pool.Exec(ctx, witnessSQL)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("the witness: %w", err)
	}
	return w, nil
}

func (w *witness) url() string { return w.server.URL("witness") }

func (w *witness) close() {
	if w.pool != nil {
		w.pool.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = w.server.Close(ctx) // nothing is to be kept
}

// put copies rows into one of the tables that are filled at the end.
func (w *witness) put(ctx context.Context, table string, columns []string, rows [][]any) error {
	_, err := w.pool.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
	if err != nil {
		return fmt.Errorf("filling %s: %w", table, err)
	}
	return nil
}

// copyTo copies what a query finds elsewhere into a table of the witness. The times in it
// become what real says of them, unless that is nil.
func (w *witness) copyTo(
	ctx context.Context, table string, columns []string, from *pgx.Conn, sql string, real func(time.Time) time.Time,
) error {
	found, err := from.Query(ctx, sql)
	if err != nil {
		return err
	}
	var rows [][]any
	for found.Next() {
		values, err := found.Values()
		if err != nil {
			return err
		}
		for i, v := range values {
			if at, is := v.(time.Time); is && real != nil {
				values[i] = real(at)
			}
		}
		rows = append(rows, values)
	}
	if err := found.Err(); err != nil {
		return err
	}
	return w.put(ctx, table, columns, rows)
}

func connectTo(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = harnessApp
	return pgx.ConnectConfig(ctx, config)
}
