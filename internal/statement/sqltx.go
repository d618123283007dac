package statement

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/gworker/gworker/internal/dbgen"
)

// SQL is a database/sql transaction, connection or pool.
type SQL interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// OnSQL returns the statements to run inside a database/sql transaction, of any PostgreSQL
// driver: arrays and JSON are passed as text.
func (s *Set) OnSQL(tx SQL) *dbgen.Queries { return dbgen.New(s.BindSQL(tx)) }

// BindSQL is OnSQL as Bind is OnPool.
func (s *Set) BindSQL(tx SQL) DB {
	// How the driver sends its statements is the driver's setting.
	set := *s
	set.options.Unprepared = false
	return set.Bind(sqlTx{tx: tx}, nil)
}

type sqlTx struct{ tx SQL }

func (t sqlTx) Exec(ctx context.Context, text string, args ...any) (pgconn.CommandTag, error) {
	plain, err := plainArgs(args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	result, err := t.tx.ExecContext(ctx, text, plain...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows, err := result.RowsAffected()
	if err != nil {
		return pgconn.CommandTag{}, nil //nolint:nilerr // the statement was carried out; the driver does not count
	}
	return pgconn.NewCommandTag(fmt.Sprintf("ROWS %d", rows)), nil
}

func (t sqlTx) Query(ctx context.Context, text string, args ...any) (pgx.Rows, error) {
	plain, err := plainArgs(args)
	if err != nil {
		return nil, err
	}
	rows, err := t.tx.QueryContext(ctx, text, plain...)
	if err != nil {
		return nil, err
	}
	return sqlRows{rows: rows}, nil
}

func (t sqlTx) QueryRow(ctx context.Context, text string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, text, args...) //nolint:sqlclosecheck // Scan closes them
	if err != nil {
		return failedRow{err: err}
	}
	return firstRow{rows: rows.(sqlRows)}
}

// plainArgs turns pgx's arguments into values that every driver takes.
func plainArgs(args []any) ([]any, error) {
	types := pgtype.NewMap()
	plain := make([]any, len(args))
	for i, arg := range args {
		if reflect.ValueOf(arg).Kind() != reflect.Slice {
			plain[i] = arg
			continue
		}
		known, ok := types.TypeForValue(arg)
		if !ok {
			return nil, fmt.Errorf("argument %d of type %T has no PostgreSQL array type", i+1, arg)
		}
		text, err := types.Encode(known.OID, pgtype.TextFormatCode, arg, nil)
		if err != nil {
			return nil, fmt.Errorf("argument %d of type %T: %w", i+1, arg, err)
		}
		if text != nil {
			plain[i] = string(text)
		}
	}
	return plain, nil
}

// sqlRows shows *sql.Rows as pgx.Rows, as far as generated code needs it.
type sqlRows struct{ rows *sql.Rows }

func (r sqlRows) Close()                                       { _ = r.rows.Close() }
func (r sqlRows) Err() error                                   { return r.rows.Err() }
func (r sqlRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (r sqlRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (r sqlRows) Next() bool                                   { return r.rows.Next() }
func (r sqlRows) Values() ([]any, error)                       { return nil, errors.ErrUnsupported }
func (r sqlRows) RawValues() [][]byte                          { return nil }
func (r sqlRows) Conn() *pgx.Conn                              { return nil }
func (r sqlRows) TypeMap() *pgtype.Map                         { return nil }
func (r sqlRows) Scan(dest ...any) error                       { return r.rows.Scan(dest...) }

type firstRow struct{ rows sqlRows }

func (r firstRow) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return r.rows.rows.Close()
}

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }
