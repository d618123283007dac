package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/migrate"
)

// settings are put on top of the server's defaults. Checkpoints are made before
// each run and not in the middle of one; statements are counted in the idle
// scenario alone.
var settings = map[string]string{
	"fsync":                     "on",
	"full_page_writes":          "on",
	"synchronous_commit":        "on",
	"shared_buffers":            "512MB",
	"max_wal_size":              "8GB",
	"checkpoint_timeout":        "30min",
	"max_connections":           "400",
	"autovacuum":                "on",
	"track_activity_query_size": "4096",
}

const statementsLibrary = "pg_stat_statements"

// A server is the one that all sides are measured on.
type server struct {
	pg      *devpg.Server
	admin   *pgxpool.Pool
	pid     int // of the postmaster
	counts  bool
	version string
	shown   map[string]string // the settings that matter
}

func startServer(ctx context.Context, extra map[string]string) (*server, error) {
	all := maps.Clone(settings)
	maps.Copy(all, extra)
	start := func(more map[string]string) (*devpg.Server, error) {
		s := maps.Clone(all)
		maps.Copy(s, more)
		return devpg.Start(ctx, devpg.Options{IgnoreEnvironment: true, Settings: s})
	}
	pg, err := start(map[string]string{
		"shared_preload_libraries": statementsLibrary, statementsLibrary + ".track": "none",
	})
	counts := err == nil
	if err != nil { // a server without its contrib modules
		if pg, err = start(nil); err != nil {
			return nil, err
		}
	}
	s := &server{pg: pg, counts: counts, shown: make(map[string]string)}
	if err := s.look(ctx); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

func (s *server) look(ctx context.Context) (err error) {
	if s.admin, err = pgxpool.New(ctx, s.pg.AdminURL()); err != nil {
		return err
	}
	if s.counts {
		if _, err := s.admin.Exec(ctx, "create extension "+statementsLibrary); err != nil {
			return fmt.Errorf("counting statements: %w", err)
		}
	}
	var dir string
	if err := s.admin.QueryRow(ctx, `select current_setting('server_version'), current_setting('data_directory')`).
		Scan(&s.version, &dir); err != nil {
		return fmt.Errorf("asking the server for its version: %w", err)
	}
	names := append(slices.Collect(maps.Keys(settings)), "wal_sync_method", "wal_level", "jit", "work_mem")
	rows, err := s.admin.Query(ctx, `select name, current_setting(name) from pg_settings where name = any ($1)`, names)
	if err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	var name, value string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		s.shown[name] = value
		return nil
	}); err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid")); err == nil {
		first, _, _ := strings.Cut(string(text), "\n")
		s.pid, _ = strconv.Atoi(first)
	}
	return nil
}

func (s *server) close(ctx context.Context) error {
	if s.admin != nil {
		s.admin.Close()
	}
	return s.pg.Close(ctx)
}

// template makes a database that runs copy: with the schema of a family, filled.
// It is vacuumed and analysed, so that all copies are alike to the last page.
func (s *server) template(ctx context.Context, name string, q queue, fill func(context.Context, *pgxpool.Pool) error) error {
	if err := s.drop(ctx, name); err != nil {
		return err
	}
	if _, err := s.admin.Exec(ctx, "create database "+name+" template template0"); err != nil {
		return fmt.Errorf("making a database: %w", err)
	}
	pool, err := pgxpool.New(ctx, s.pg.URL(name))
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := q.migrate(ctx, pool); err != nil {
		return fmt.Errorf("installing the schema of %s: %w", q.name(), err)
	}
	if fill != nil {
		if err := fill(ctx, pool); err != nil {
			return fmt.Errorf("filling the queue of %s: %w", q.name(), err)
		}
	}
	if _, err := pool.Exec(ctx, "vacuum (freeze, analyze)"); err != nil {
		return fmt.Errorf("vacuuming: %w", err)
	}
	return nil
}

func (s *server) drop(ctx context.Context, name string) error {
	_, err := s.admin.Exec(ctx, "drop database if exists "+name+" with (force)")
	if err != nil {
		return fmt.Errorf("dropping a database: %w", err)
	}
	return nil
}

// database copies a template and writes everything to the disk.
func (s *server) database(ctx context.Context, name, template string) (url string, err error) {
	if err := s.drop(ctx, name); err != nil {
		return "", err
	}
	if _, err := s.admin.Exec(ctx, "create database "+name+" template "+template); err != nil {
		return "", fmt.Errorf("copying a database: %w", err)
	}
	if _, err := s.admin.Exec(ctx, "checkpoint"); err != nil {
		return "", fmt.Errorf("writing a checkpoint: %w", err)
	}
	return s.pg.URL(name), nil
}

func migrateGraphile(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := migrate.Up(ctx, pool, migrate.Options{})
	return err
}
