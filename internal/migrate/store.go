package migrate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3/database"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/schema"
)

// store shows goose the ledger in the form that it expects: with a version 0, and only with
// revisions that count as applied.
type store struct{ schema schema.Name }

var _ database.StoreExtender = store{}

func (s store) Tablename() string { return s.schema.Quoted() + ".migrations" }

// TableExists always returns true: the schema is made before goose runs, and the table by
// the first migration.
func (s store) TableExists(context.Context, database.DBTxConn) (bool, error) { return true, nil }

func (s store) CreateVersionTable(context.Context, database.DBTxConn) error { return nil }

// Insert does nothing if the migration file has inserted its own row, as all do.
func (s store) Insert(ctx context.Context, db database.DBTxConn, r database.InsertRequest) error {
	if r.Version == 0 {
		return nil
	}
	_, err := db.ExecContext(ctx, s.schema.Render(dbgen.InsertLedgerRow),
		pgx.QueryExecModeExec, r.Version, isBreakingHere(int(r.Version)))
	if err != nil {
		return fmt.Errorf("statement InsertLedgerRow: %w", err)
	}
	return nil
}

// Delete is for going down, which is not supported.
func (s store) Delete(_ context.Context, _ database.DBTxConn, version int64) error {
	return fmt.Errorf("taking back revision %d: %w", version, database.ErrNotImplemented)
}

func (s store) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	if version == 0 {
		return &database.GetMigrationResult{IsApplied: true}, nil
	}
	now, err := readState(ctx, db, s.schema)
	if err != nil {
		return nil, err
	}
	if version > int64(now.applied()) {
		return nil, database.ErrVersionNotFound
	}
	row, _ := now.row(int(version))
	return &database.GetMigrationResult{Timestamp: row.At, IsApplied: true}, nil
}

func (s store) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	now, err := readState(ctx, db, s.schema)
	if err != nil {
		return 0, err
	}
	return int64(now.applied()), nil
}

func (s store) ListMigrations(ctx context.Context, db database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	now, err := readState(ctx, db, s.schema)
	if err != nil {
		return nil, err
	}
	var list []*database.ListMigrationsResult
	for id := now.applied(); id >= 0; id-- {
		list = append(list, &database.ListMigrationsResult{Version: int64(id), IsApplied: true})
	}
	return list, nil
}
