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

//go:embed oracle.sql
var oracleSQL string

// oracle is a server that no fault touches. Handlers connect to it directly, so what
// they record is true whatever happens to the queue's database.
type oracle struct {
	server *devpg.Server
	pool   *pgxpool.Pool
}

func startOracle(ctx context.Context) (*oracle, error) {
	s, err := devpg.Start(ctx, devpg.Options{Fast: true, IgnoreEnvironment: true, Database: "oracle"})
	if err != nil {
		return nil, err
	}
	o := &oracle{server: s}
	if o.pool, err = pgxpool.New(ctx, o.url()); err == nil {
		_, err = o.pool.Exec(ctx, oracleSQL)
	}
	if err != nil {
		o.close()
		return nil, fmt.Errorf("the oracle: %w", err)
	}
	return o, nil
}

func (o *oracle) url() string { return o.server.URL("oracle") }

func (o *oracle) close() {
	if o.pool != nil {
		o.pool.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = o.server.Close(ctx) // nothing is to be kept
}

// put copies rows into one of the tables that are filled at the end.
func (o *oracle) put(ctx context.Context, table string, columns []string, rows [][]any) error {
	_, err := o.pool.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
	if err != nil {
		return fmt.Errorf("filling %s: %w", table, err)
	}
	return nil
}

// copyTo copies what a query finds elsewhere into a table of the oracle. The times in it
// become what real says of them, unless that is nil.
func (o *oracle) copyTo(
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
	return o.put(ctx, table, columns, rows)
}

func connectTo(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = harnessApp
	return pgx.ConnectConfig(ctx, config)
}
