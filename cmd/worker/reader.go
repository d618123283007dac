package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker"
)

// withRows runs a command whose result depends on the rows of the queue. Afterwards it warns
// on stderr if row level security may hide rows from this role, even if the command has
// found nothing, since what it reports as missing may exist. It does not warn if the
// arguments were refused, or the database could not be reached.
func (s *sharedFlags) withRows(ctx context.Context, command func(*gworker.Client) error) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	err = command(client)
	var field *gworker.FieldError
	var connect *pgconn.ConnectError
	if errors.As(err, &field) || errors.As(err, &connect) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return err
	}
	var hidden *gworker.HiddenRowsError
	if errors.As(client.CheckSchema(ctx), &hidden) {
		fmt.Fprintf(s.std.err, "worker: warning: %s\n", explain(hidden))
	}
	return err
}
