package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
)

// NewestHistory is the last migration of history, whose tables are gworker's own: they are
// made by files of their own (db/history), and recorded in a ledger of their own, so that
// Node and Rust see nothing of them.
const NewestHistory = 2

// History is what a schema has of history, and what the role may do with it.
type History struct {
	// Version is the last migration that was applied, 0 without history.
	Version int
	// Records says that the role may record what happens, and Reads that it may read that.
	Records, Reads bool
	// Due says that nobody has seen to the tables for a day.
	Due bool
	// Creates says that it may make tables in the schema.
	Creates bool
	// Role is the role.
	Role string
}

// ReadHistory looks at what there is. A schema that does not exist has no history.
func ReadHistory(ctx context.Context, q *dbgen.Queries, name schema.Name) (History, error) {
	found, err := q.HistoryReach(ctx, name.String())
	if errors.Is(err, pgx.ErrNoRows) {
		return History{}, nil
	}
	return History{
		Version: int(found.Version), Records: found.Records, Reads: found.Reads, Due: found.Due, Creates: found.Creates, Role: found.Role,
	}, err
}

// UpHistory makes the tables of history, or brings them up to date. Any number of processes
// may do so at once.
func UpHistory(ctx context.Context, pool *pgxpool.Pool, name schema.Name) error {
	release, err := lock(ctx, pool, name)
	if err != nil {
		return err
	}
	defer release()
	conns := stdlib.OpenDBFromPool(pool)
	defer conns.Close()
	files := name.FS(db.History)
	ledger, err := fs.ReadFile(files, "000000_ledger.sql")
	if err != nil {
		return fmt.Errorf("reading the migrations of history: %w", err)
	}
	if _, err := conns.ExecContext(ctx, string(ledger)); err != nil {
		return fmt.Errorf("making the ledger of history: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectCustom, conns, files,
		goose.WithStore(historyStore{schema: name}), goose.WithDisableGlobalRegistry(true),
	)
	if err != nil {
		return fmt.Errorf("reading the migrations of history: %w", err)
	}
	_, err = provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		return fmt.Errorf("applying migration %d of history: %w", partial.Failed.Source.Version, partial.Err)
	}
	return err
}

// DropHistory takes away what UpHistory has made, with all that is recorded.
func DropHistory(ctx context.Context, pool *pgxpool.Pool, name schema.Name) error {
	text, err := fs.ReadFile(name.FS(db.Uninstall), "history.sql")
	if err != nil {
		return fmt.Errorf("reading how history is taken away: %w", err)
	}
	release, err := lock(ctx, pool, name)
	if err != nil {
		return err
	}
	defer release()
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, string(text))
		return err
	})
}

// historyStore is the ledger of history as goose wants it.
type historyStore struct{ schema schema.Name }

var _ database.StoreExtender = historyStore{}

func (s historyStore) Tablename() string { return s.schema.Quoted() + "._gworker_migrations" }

// TableExists always returns true: the table is made before goose runs.
func (s historyStore) TableExists(context.Context, database.DBTxConn) (bool, error) { return true, nil }

func (s historyStore) CreateVersionTable(context.Context, database.DBTxConn) error { return nil }

func (s historyStore) Insert(ctx context.Context, db database.DBTxConn, r database.InsertRequest) error {
	if r.Version == 0 {
		return nil
	}
	_, err := db.ExecContext(ctx, s.schema.Render(dbgen.InsertHistoryRow), pgx.QueryExecModeExec, r.Version)
	if err != nil {
		return fmt.Errorf("statement InsertHistoryRow: %w", err)
	}
	return nil
}

// Delete is for going down, which is not supported.
func (s historyStore) Delete(_ context.Context, _ database.DBTxConn, version int64) error {
	return fmt.Errorf("taking back migration %d of history: %w", version, database.ErrNotImplemented)
}

// applied are the recorded migrations, the last first, and 0.
func (s historyStore) applied(ctx context.Context, db reader) ([]int64, error) {
	var ids []int64
	err := query(ctx, db, s.schema, dbgen.HistoryRows, nil, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return append(ids, 0), err
}

func (s historyStore) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	ids, err := s.applied(ctx, db)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(ids, version):
		return nil, database.ErrVersionNotFound
	}
	return &database.GetMigrationResult{IsApplied: true}, nil
}

func (s historyStore) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	ids, err := s.applied(ctx, db)
	return ids[0], err
}

func (s historyStore) ListMigrations(ctx context.Context, db database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	ids, err := s.applied(ctx, db)
	var list []*database.ListMigrationsResult
	for _, id := range ids {
		list = append(list, &database.ListMigrationsResult{Version: id, IsApplied: true})
	}
	return list, err
}
