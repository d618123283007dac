// Package db holds the SQL of the project: the schema's migrations, in goose
// format, and the queries that sqlc turns into internal/dbgen.
//
// What gworker records next to it, history, is in a folder of its own.
//
// Nothing comes in, and what goes out is text. It names the schema
// graphile_worker literally, so that it is plain SQL for psql and editors;
// internal/schema renders it for another name. The one thing not to break are
// the two rules of that rendering: the bare name stands only where an
// identifier does, never in a string or comment, and dollar quotes have the tag
// $gw$.
//
// A migration file is one statement to goose, its first command inserts its
// ledger row, and its last one announces it. Files 19 and 20 can be run again
// over what is there; the others cannot, and need not.
package db

import (
	"embed"
	"io/fs"
)

//go:embed migrations/*.sql history/*.sql uninstall/*.sql
var files embed.FS

// Migrations is the folder of migration files, for goose. File 0, which goose
// passes over, makes the schema.
var Migrations = mustSub(files, "migrations")

// History is the folder of the migration files of history, for goose: tables of gworker's
// own, with a ledger of their own.
var History = mustSub(files, "history")

// Uninstall is the folder of what takes things away: history.sql is for History.
var Uninstall = mustSub(files, "uninstall")

func mustSub(fsys fs.FS, dir string) fs.FS {
	sub, err := fs.Sub(fsys, dir)
	if err != nil {
		panic(err) // the name is a constant, and valid
	}
	return sub
}
