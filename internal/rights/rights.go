// Package rights gives roles the rights to work with a queue that they do not own:
// grants, and policies, since row level security hides the rows of the private tables
// from every role but their owner.
//
// A role's name, a kind and a schema come in; statements go out, which Apply runs in
// one transaction. The one thing not to break: only grants and policies are made, so
// the schema stays what all Graphile Workers know, and Revoke leaves what was there
// before plus what other kinds have given the role.
package rights

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// A Kind is what a role may do.
type Kind string

// The kinds.
const (
	Producer Kind = "producer" // adds jobs
	Worker   Kind = "worker"   // runs them
	Reader   Kind = "reader"   // looks at them, without their payloads
	Payloads Kind = "payloads" // what a reader gets in addition
)

// Errors about the role.
var (
	ErrNoRole  = errors.New("there is no such role in the database server")
	ErrIsOwner = errors.New("it owns the queue's tables, and has all rights")
)

// Plan is the statements that give rights to a role, or take them.
type Plan struct {
	name  schema.Name
	role  string
	kinds []Kind // what the role has been given
	had   []dbgen.RightsPoliciesRow
	table []dbgen.RightsTablesRow
	// history says that the schema has tables of history.
	history bool
	adds    []string // functions that add unique jobs
}

// For looks at what the role has.
func For(ctx context.Context, q *dbgen.Queries, name schema.Name, role string) (*Plan, error) {
	target, err := q.RightsTarget(ctx, dbgen.RightsTargetParams{Role: role, Schema: name.String()})
	switch {
	case err != nil:
		return nil, err
	case !target.RoleExists:
		return nil, ErrNoRole
	case target.IsOwner:
		return nil, ErrIsOwner
	}
	p := &Plan{name: name, role: role}
	if p.table, err = q.RightsTables(ctx, name.String()); err != nil {
		return nil, err
	}
	if p.adds, err = q.RightsFunctions(ctx, name.String()); err != nil {
		return nil, err
	}
	if p.had, err = q.RightsPolicies(ctx, dbgen.RightsPoliciesParams{Schema: name.String(), Role: role}); err != nil {
		return nil, err
	}
	reach, err := q.HistoryReach(ctx, name.String())
	if err != nil {
		return nil, err
	}
	p.history = reach.Version > 0
	for _, kind := range []Kind{Producer, Worker, Reader, Payloads} {
		if slices.ContainsFunc(p.had, func(had dbgen.RightsPoliciesRow) bool { return isOf(had.Name, kind) }) {
			p.kinds = append(p.kinds, kind)
		}
	}
	return p, nil
}

// Grant are the statements that give the role rights.
func (p *Plan) Grant(kinds ...Kind) []string {
	var statements []string
	for _, kind := range kinds {
		statements = append(statements, p.each("grant %s on %s to %s", kind)...)
		for _, made := range p.policies(kind) {
			if !slices.ContainsFunc(p.had, func(had dbgen.RightsPoliciesRow) bool {
				return had.TableName == made.table && strings.HasPrefix(had.Name, made.prefix(kind))
			}) {
				statements = append(statements, p.create(kind, made))
			}
		}
	}
	return statements
}

// Revoke are the statements that take rights from the role. What it has been given by
// other kinds stays: a right that was given twice is taken and given again.
func (p *Plan) Revoke(kinds ...Kind) []string {
	var statements []string
	for _, kind := range kinds {
		for _, had := range p.had {
			if isOf(had.Name, kind) {
				statements = append(statements, fmt.Sprintf("drop policy if exists %s on %s", quoted(had.Name), p.object(had.TableName)))
			}
		}
		statements = append(statements, p.each("revoke %s on %s from %s", kind)...)
	}
	for _, kept := range p.kinds {
		if !slices.Contains(kinds, kept) {
			statements = append(statements, p.each("grant %s on %s to %s", kept)...)
		}
	}
	return statements
}

func (p *Plan) each(format string, kind Kind) []string {
	var statements []string
	for _, r := range p.rights(kind) {
		statements = append(statements, fmt.Sprintf(format, r.privileges, r.object, quoted(p.role)))
	}
	return statements
}

// Apply carries statements out, all or none.
func Apply(ctx context.Context, pool *pgxpool.Pool, set *statement.Set, statements []string) error {
	ctx, cancel := context.WithTimeout(ctx, set.Timeout())
	defer cancel()
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		for _, text := range append([]string{lockTimeout}, statements...) {
			if _, err := tx.Exec(ctx, text, pgx.QueryExecModeExec); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
}

// lockTimeout is how long a policy waits for its table, for which everybody else waits
// who comes later.
const lockTimeout = "set local lock_timeout = '5s'"

// Script is statements as a text for psql.
func Script(statements []string) string {
	var text strings.Builder
	for _, s := range slices.Concat([]string{"begin", lockTimeout}, statements, []string{"commit"}) {
		text.WriteString(s)
		text.WriteString(";\n")
	}
	return text.String()
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

func (p *Plan) object(name string) string { return p.name.Quoted() + "." + quoted(name) }

func isOf(policy string, kind Kind) bool {
	return strings.HasPrefix(policy, "gworker_"+string(kind)+"_")
}

// roleMark tells the policies of roles apart whose names have no room in theirs.
func (p *Plan) roleMark() string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(p.role)) // it never fails
	return fmt.Sprintf("%08x", hash.Sum32())
}
