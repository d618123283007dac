package dbgen

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Rows runs the text of a query for a caller that reads its rows itself, as sqlc's
// methods make a value of their own of each.
func (q *Queries) Rows(ctx context.Context, text string, args ...any) (pgx.Rows, error) {
	return q.db.Query(ctx, text, args...)
}
