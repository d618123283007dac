package testworker

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq"

	"github.com/gworker/gworker"
)

// A CompleteTx completes a job in a transaction of pgx or database/sql, with an effect,
// and ends it by commit or rollback.
type CompleteTx func(t *testing.T, ctx context.Context, pool *pgxpool.Pool, job *gworker.RawJob, commit bool) error

// CompletePgx is a CompleteTx with a transaction of pgx.
func CompletePgx(_ *testing.T, ctx context.Context, pool *pgxpool.Pool, job *gworker.RawJob, commit bool) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into effects values ($1)", job.ID); err != nil {
			return err
		}
		if err := job.CompleteTx(ctx, tx); err != nil {
			return err
		}
		if !commit {
			return tx.Rollback(ctx)
		}
		return nil
	})
}

// CompleteSQL is a CompleteTx with a driver that knows nothing of pgx's types.
func CompleteSQL(_ *testing.T, ctx context.Context, pool *pgxpool.Pool, job *gworker.RawJob, commit bool) error {
	db, err := sql.Open("postgres", pool.Config().ConnString())
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "insert into effects values ($1)", job.ID); err != nil {
		return err
	}
	if err := job.CompleteSQLTx(ctx, tx); err != nil {
		return err
	}
	if !commit {
		return tx.Rollback()
	}
	return tx.Commit()
}
