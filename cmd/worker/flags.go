package main

import (
	"cmp"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/schema"
)

// sharedFlags are the flags that every subcommand has.
type sharedFlags struct {
	std            stdio
	settings       settings
	databaseURL    string
	schema         string
	logLevel       string
	logFormat      string
	connectTimeout time.Duration
	unprepared     bool
	actsFor        string
}

func (f *sharedFlags) register(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVarP(&f.databaseURL, "database-url", "c", "",
		"connection string, as URL or keywords; --connection is the same (default $DATABASE_URL, else libpq's PG* variables)")
	flags.StringVarP(&f.schema, "schema", "s", "",
		"schema of the queue (default $GRAPHILE_WORKER_SCHEMA, else "+schema.Default+")")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", formatAuto,
		"console, json, or auto: console on a terminal, in colors unless NO_COLOR is set, and json anywhere else")
	complete(root, "log-level", words("debug", "info", "warn", "error"))
	complete(root, "log-format", words(formatAuto, formatConsole, formatJSON))
	flags.DurationVar(&f.connectTimeout, "connect-timeout", 0,
		"how long to wait for a database that cannot be reached (default 30s where the worker runs, else 10s)")
	flags.StringVar(&f.actsFor, "as", "", "name of whoever this is done for, which history has next to the users of the database and the system")
	flags.BoolVar(&f.unprepared, "no-prepared-statements", false,
		"do not prepare statements, for transaction-pooling proxies such as PgBouncer")
}

// url is the connection string; empty means libpq's variables.
func (f *sharedFlags) url() string {
	if f.databaseURL != "" {
		return f.databaseURL
	}
	return os.Getenv("DATABASE_URL")
}

func (f *sharedFlags) schemaName() string {
	if f.schema != "" {
		return f.schema
	}
	return os.Getenv("GRAPHILE_WORKER_SCHEMA")
}

// schemaOrDefault is the schema's name for messages.
func (f *sharedFlags) schemaOrDefault() string {
	if name := f.schemaName(); name != "" {
		return name
	}
	return schema.Default
}

func (f *sharedFlags) logger(cmd *cobra.Command) (*zap.Logger, error) {
	logger, err := newLogger(f.std.err, f.logLevel, f.logFormat)
	if err != nil {
		return nil, usageError{command: cmd.CommandPath(), err: err}
	}
	return logger, nil
}

func (f *sharedFlags) client() (*gworker.Client, error) { return gworker.NewClient(f.clientConfig()) }

func (f *sharedFlags) clientConfig() gworker.ClientConfig {
	return gworker.ClientConfig{
		DatabaseURL: f.url(), Schema: f.schemaName(), NoPreparedStatements: f.unprepared,
		ConnectTimeout: cmp.Or(f.connectTimeout, commandConnectTimeout), ActsFor: f.actsFor,
	}
}

// commandConnectTimeout is the default of --connect-timeout for all commands but run, since
// a person waits for them.
const commandConnectTimeout = 10 * time.Second
