package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gworker/gworker"
)

// reader returns a client for a command that prints what is in the queue. It says on
// stderr if there may be more than this role is shown.
func (s *sharedFlags) reader(ctx context.Context) (*gworker.Client, error) {
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	err = client.CheckSchema(ctx)
	var hidden *gworker.HiddenRowsError
	switch {
	case errors.As(err, &hidden):
		fmt.Fprintf(s.std.err, "worker: warning: %s\n", explain(hidden))
	case errors.Is(err, gworker.ErrNotInstalled): // the command says what it makes of that
	case err != nil:
		client.Close()
		return nil, err
	}
	return client, nil
}
