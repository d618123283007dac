package gworker

import (
	"context"
	"errors"
	"fmt"

	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/rights"
)

// Rights are what a role may do with a queue that it does not own (docs/security.md).
type Rights string

// The rights that Client.Grant gives.
const (
	// RightsProducer: adds jobs, by clients of any runtime or by SQL, and replaces
	// jobs whose keys it knows. It sees no other job, and cannot remove any.
	RightsProducer Rights = "producer"
	// RightsWorker: runs jobs, adds, changes and removes them, and keeps a crontab.
	// It cannot migrate the schema.
	RightsWorker Rights = "worker"
	// RightsReader: sees jobs, queues and workers, but no payloads unless
	// GrantOptions.Payloads says so, and changes nothing.
	RightsReader Rights = "reader"
)

// GrantOptions configure Client.Grant and Client.Revoke.
type GrantOptions struct {
	// Payloads gives a reader the payloads, too. Revoke takes them in any case.
	Payloads bool
	// DryRun changes nothing.
	DryRun bool
}

// Grant gives a role, which must exist, the rights to work with the queue, and returns
// the SQL that it has run, in one transaction. The client's role must own the schema.
// It makes grants and policies, and nothing else; given again they stay as they are. A
// role can have several rights. Policies wait for their tables for 5 s at most.
//
// An error of a role that does not exist, or that owns the queue, is a *FieldError.
func (c *Client) Grant(ctx context.Context, given Rights, role string, o GrantOptions) (sql string, err error) {
	return c.changeRights(ctx, "granting", given, role, o, func(p *rights.Plan, kind rights.Kind) []string {
		kinds := []rights.Kind{kind}
		if o.Payloads {
			kinds = append(kinds, rights.Payloads)
		}
		return p.Grant(kinds...)
	})
}

// Revoke takes from a role what Grant has given it, and returns the SQL. What the role
// has by other rights of Grant's stays.
func (c *Client) Revoke(ctx context.Context, taken Rights, role string, o GrantOptions) (sql string, err error) {
	o.Payloads = false
	return c.changeRights(ctx, "revoking", taken, role, o, func(p *rights.Plan, kind rights.Kind) []string {
		if kind == rights.Reader {
			return p.Revoke(kind, rights.Payloads)
		}
		return p.Revoke(kind)
	})
}

func (c *Client) changeRights(
	ctx context.Context, doing string, which Rights, role string, o GrantOptions, plan func(*rights.Plan, rights.Kind) []string,
) (string, error) {
	kind, err := rights.Parse(string(which))
	switch {
	case err != nil:
		return "", problem("Rights", "%v", err)
	case o.Payloads && kind != rights.Reader:
		return "", problem("GrantOptions.Payloads", "is for readers: a %s needs none", kind)
	}
	status, err := c.SchemaStatus(ctx)
	switch {
	case err != nil:
		return "", err
	case !status.Installed:
		return "", fmt.Errorf("%s rights in schema %q: %w", doing, c.options.Schema, ErrNotInstalled)
	case status.Refusal != nil:
		return "", status.Refusal
	case len(status.Pending()) > 0:
		return "", fmt.Errorf("%s rights in schema %q: it is not up to date (Client.Migrate, or %s migrate, brings it there)",
			doing, c.options.Schema, program.Name)
	}
	p, err := rights.For(ctx, c.queries, c.options.Schema, role)
	switch {
	case errors.Is(err, rights.ErrNoRole), errors.Is(err, rights.ErrIsOwner):
		return "", problem("role", "is %q: %v", role, err)
	case err != nil:
		return "", fmt.Errorf("%s rights in schema %q: %w", doing, c.options.Schema, err)
	}
	statements := plan(p, kind)
	if !o.DryRun {
		if err := rights.Apply(ctx, c.pool, c.statements, statements); err != nil {
			return "", fmt.Errorf("%s rights in schema %q: %w", doing, c.options.Schema, err)
		}
	}
	return rights.Script(statements), nil
}
