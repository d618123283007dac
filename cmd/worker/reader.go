package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker"
)

// withRows runs a command that goes by what is in the queue. Afterwards it says on
// stderr if there may be more than this role is shown, also where the command has found
// nothing: what it says is missing may be there. It says nothing where the command was
// refused for what it was asked, or has met no database.
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
