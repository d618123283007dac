package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
)

// readTimeout bounds each statement that reads. Statements that migrate may take as long as
// the tables need.
const readTimeout = 30 * time.Second

// reader is a *sql.DB, *sql.Conn or *sql.Tx.
type reader interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// source is where states are read from.
type source struct {
	db     *sql.DB
	schema schema.Name
}

// read reads the schema by several statements, each with its own snapshot. What others make
// or extend meanwhile shows as missing, or as an error after which the caller reads again.
func (s source) read(ctx context.Context) (*state, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return readState(ctx, conn, s.schema)
}

func readState(ctx context.Context, db reader, name schema.Name) (*state, error) {
	var err error
	for range 5 {
		var s *state
		s, err = readOnce(ctx, db, name)
		if err == nil {
			return s, nil
		}
		if !notYet(err) {
			break
		}
	}
	return nil, err
}

func readOnce(ctx context.Context, db reader, name schema.Name) (*state, error) {
	s := &state{name: name.String(), objects: map[string]bool{}}
	if err := queryRow(ctx, db, name, dbgen.ServerVersion, nil, &s.server); err != nil {
		return nil, err
	}
	if s.server < 120000 {
		return s, nil // the other statements are for supported servers
	}
	if err := readLedger(ctx, db, name, s); err != nil {
		return nil, err
	}
	if !s.hasSchema {
		return s, nil
	}
	err := queryRow(ctx, db, name, dbgen.SchemaMarks, []any{name.String()},
		&s.marks.keyLocks, &s.marks.ownAdding, &s.marks.own)
	if err != nil {
		return nil, err
	}
	err = query(ctx, db, name, dbgen.SchemaObjects, []any{name.String()}, func(rows *sql.Rows) error {
		var line string
		err := rows.Scan(&line)
		s.objects[line] = true
		return err
	})
	if err != nil || !s.truncated() {
		return s, err
	}
	// The objects were read after the rows. If others have migrated in between, the rows
	// show it now.
	now := &state{}
	err = readLedger(ctx, db, name, now)
	s.rows = now.rows
	return s, err
}

func readLedger(ctx context.Context, db reader, name schema.Name, s *state) error {
	err := queryRow(ctx, db, name, dbgen.LedgerShape, []any{name.String()}, &s.hasSchema, &s.hasLedger, &s.hasBreaking, &s.columns)
	if err != nil || !s.hasLedger {
		return err
	}
	if s.foreign() {
		return nil // its rows have another meaning
	}
	text := dbgen.LedgerRows
	if !s.hasBreaking {
		text = dbgen.EarlyLedgerRows
	}
	return query(ctx, db, name, text, nil, func(rows *sql.Rows) error {
		var r Revision
		var microseconds int64
		var err error
		if s.hasBreaking {
			err = rows.Scan(&r.ID, &microseconds, &r.Breaking)
		} else {
			err = rows.Scan(&r.ID, &microseconds)
			r.Breaking = isBreakingHere(r.ID)
		}
		r.At = time.UnixMicro(microseconds)
		s.rows = append(s.rows, r)
		return err
	})
}

// query runs one of the texts of db/queries, without preparing it: behind a
// transaction pooler the next statement may reach another server process.
func query(ctx context.Context, db reader, name schema.Name, text string, args []any, each func(*sql.Rows) error) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, errReadTimeout)
	defer cancel()
	defer func() {
		switch {
		case err == nil:
		case errors.Is(context.Cause(ctx), errReadTimeout):
			err = &statement.TimeoutError{Statement: statement.Name(text), After: readTimeout, Err: err}
		default:
			err = fmt.Errorf("statement %s: %w", statement.Name(text), err)
		}
	}()
	rows, err := db.QueryContext(ctx, name.Render(text), append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func queryRow(ctx context.Context, db reader, name schema.Name, text string, args []any, dest ...any) error {
	found := false
	err := query(ctx, db, name, text, args, func(rows *sql.Rows) error {
		found = true
		return rows.Scan(dest...)
	})
	if err == nil && !found {
		return fmt.Errorf("statement %s: %w", statement.Name(text), sql.ErrNoRows)
	}
	return err
}

var errReadTimeout = errors.New("statement time-out")
