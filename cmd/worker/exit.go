package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/advice"
	"github.com/gworker/gworker/internal/program"
)

// The exit statuses of the binary.
const (
	statusFailure = 1
	statusUsage   = 2
	// statusIncompatible is the status of every Graphile Worker when the schema has a
	// breaking revision that it does not know.
	statusIncompatible = 57
)

// usageError is a command line that cannot be understood.
type usageError struct {
	command string
	err     error
}

func (e usageError) Error() string {
	return fmt.Sprintf("%v (see %s --help)", e.err, e.command)
}

func (e usageError) Unwrap() error { return e.err }

func exitStatus(err error) int {
	var usage usageError
	var field *gworker.FieldError
	var incompatible *gworker.IncompatibleSchemaError
	switch {
	case errors.As(err, &usage), errors.As(err, &field):
		return statusUsage
	case errors.As(err, &incompatible), errors.Is(err, gworker.ErrBreakingMigration):
		return statusIncompatible
	}
	return statusFailure
}

// explain is the one line that is printed: the cause, and what to do.
func explain(err error) string {
	text := err.Error()
	var field *gworker.FieldError
	if errors.As(err, &field) {
		text = field.Error()
		// An entry of a list is named by its position.
		list, _, _ := strings.Cut(field.Field, "[")
		if flag, ok := flagOf[list]; ok {
			var set *settingError
			if errors.As(err, &set) {
				flag += " (from " + set.source + ")"
			}
			text = flag + " " + field.Problem
		}
	}
	hint := hintFor(err)
	var advised *advice.Error
	if errors.As(err, &advised) {
		text = strings.Replace(text, " ("+advised.Advice+")", "", 1)
		hint = cmp.Or(hint, strings.ReplaceAll(advised.Advice, "Config.NoPreparedStatements", "--no-prepared-statements"))
	}
	line := oneLine(withoutStatements(text))
	if hint != "" {
		line = hint + ": " + line
	}
	return hideSecrets(line)
}

var (
	silentStatement = regexp.MustCompile(`statement [A-Z]\w+ did not end within (\S+): `)
	statementName   = regexp.MustCompile(`statement [A-Z]\w+: `)
)

// withoutStatements removes the internal names of statements from an error's text.
func withoutStatements(text string) string {
	text = silentStatement.ReplaceAllString(text, "the database did not do it within $1: ")
	return statementName.ReplaceAllLiteralString(text, "")
}

// notPostgres matches pgconn's errors about answers that are not PostgreSQL's protocol.
var notPostgres = regexp.MustCompile(`invalid (body|message) length|unknown message type`)

// refusedTLS matches the line of a refused attempt with TLS, which is repeated without.
var refusedTLS = regexp.MustCompile(`^\S+ \(\S+\): tls error: server refused TLS connection$`)

// oneLine joins the lines of a text. It leaves out repeated lines, since each address is
// tried with and without TLS, and the refusal of TLS if another line follows.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || slices.Contains(lines, line) {
			continue
		}
		if n := len(lines); n > 1 && refusedTLS.MatchString(lines[n-1]) {
			lines = lines[:n-1]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, " ")
}

// flagOf names the flags that set the library's fields.
var flagOf = map[string]string{
	"Config.DatabaseURL":                  "the connection string",
	"ClientConfig.DatabaseURL":            "the connection string",
	"Config.Schema":                       "--schema",
	"ClientConfig.Schema":                 "--schema",
	"Config.ListenDatabaseURL":            "--listen-database-url",
	"Config.Concurrency":                  "--jobs",
	"Config.PollInterval":                 "--poll-interval",
	"Config.MaxPoolSize":                  "--max-pool-size",
	"Config.ConnectTimeout":               "--connect-timeout",
	"ClientConfig.ConnectTimeout":         "--connect-timeout",
	"Config.Cron.Crontab":                 "--crontab",
	"Config.GracefulShutdownAbortTimeout": "--shutdown-abort-timeout",
	"Config.ShutdownReturnDelay":          "--shutdown-return-delay",
	"Config.ShutdownTimeout":              "--shutdown-timeout",
	"Config.Recovery.StaleAfter":          "--stale-after",
	"Config.HoldTime":                     "--hold-time",
	"Config.LocalQueue.Size":              "--local-queue-size",
	"Config.ForbiddenFlags":               "--forbidden-flags",
	"Config.AcceptedFlags":                "--accepted-flags",
	"Config.Recovery.Delay":               "--delay",
	"SweepOptions.NodeLocksOlderThan":     "--include-node-locks-older-than",
	"TaskFileOptions.Env":                 "--task-env",
	"TaskFileOptions.EnvNames":            "--task-env-names",
	"JobSpec.Task":                        "the task",
	"JobSpec.Payload":                     "the payload",
	"JobSpec.Queue":                       "--queue",
	"JobSpec.RunAt":                       "--run-at",
	"JobSpec.MaxAttempts":                 "--max-attempts",
	"JobSpec.Key":                         "--key",
	"JobSpec.KeyMode":                     "--key-mode",
	"JobSpec.Priority":                    "--priority",
	"JobSpec.UniqueFor":                   "--unique-for",
	"JobSpec.UniqueKey":                   "--unique-key",
	"JobSpec.UniqueScope":                 "--unique-scope",
	"RescheduleOptions.RunAt":             "--run-at",
	"RescheduleOptions.Priority":          "--priority",
	"RescheduleOptions.Attempts":          "--attempts",
	"RescheduleOptions.MaxAttempts":       "--max-attempts",
	"JobFilter.States":                    "--state",
	"JobFilter.Tasks":                     "--task",
	"JobFilter.Queues":                    "--queue",
	"JobFilter.Keys":                      "--key",
	"JobFilter.Workers":                   "--worker",
	"JobFilter.Flags":                     "--flag",
	"JobFilter.ErrorContains":             "--error",
	"JobFilter.RunAt.From":                "--run-at-from",
	"JobFilter.RunAt.Before":              "--run-at-before",
	"JobFilter.CreatedAt.From":            "--created-since",
	"JobFilter.CreatedAt.Before":          "--created-before",
	"JobFilter.UpdatedAt.From":            "--updated-since",
	"JobFilter.UpdatedAt.Before":          "--updated-before",
	"JobFilter.Order":                     "--order",
	"JobFilter.Limit":                     "--limit",
	"JobFilter.Cursor":                    "--cursor",
	"QueueFilter.Names":                   "the queue",
	"QueueFilter.Limit":                   "--limit",
	"QueueFilter.Cursor":                  "--cursor",
	"StatsOptions.MaxQueues":              "--max-queues",
	"CleanupOptions.Tasks":                "the cleanup task",
	"CleanupOptions.KeepTasks":            "--keep-task",
	"workerIDs":                           "the worker's id",
	"key":                                 "the key",
	"Rights":                              "the kind of rights",
	"role":                                "the role",
	"GrantOptions.Payloads":               "--payloads",
	"reason":                              "--reason",
}

const whereFrom = "--database-url, DATABASE_URL or the PG* variables"

func hintFor(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answerHint(answer)
	}
	var writable *gworker.WritableTasksError
	if errors.As(err, &writable) {
		return "take these rights away (chmod go-w, chown), or say --allow-writable-tasks"
	}
	var dns *net.DNSError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("no such host %q: check the host in %s", dns.Name, whereFrom)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: start PostgreSQL, or check host and port in " + whereFrom
	case errors.As(err, &connect) && errors.Is(err, fs.ErrNotExist):
		return "no PostgreSQL socket there: start PostgreSQL, or say where it is with " + whereFrom
	case errors.As(err, &connect) && notPostgres.MatchString(err.Error()):
		return "what answers there is no PostgreSQL: check host and port in " + whereFrom
	case errors.As(err, &connect) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		return "the connection was ended before PostgreSQL answered: see whether it runs, and the log of a proxy that is in between"
	case errors.Is(err, context.DeadlineExceeded): // last: tries before the one that it interrupted may say more
		return "the server did not answer: check host, port and firewall"
	}
	return ""
}

func answerHint(answer *pgconn.PgError) string {
	switch answer.Code {
	case pgerrcode.InvalidPassword, pgerrcode.InvalidAuthorizationSpecification:
		return "check user and password in " + whereFrom
	case pgerrcode.InvalidCatalogName:
		return "create it (createdb NAME), or check the database's name in " + whereFrom
	case pgerrcode.InsufficientPrivilege:
		return "the user lacks rights: connect as the owner of the schema, or let the owner give it rights (" + program.Name + " grant); " +
			"to install, it needs CREATE on the database"
	case pgerrcode.ReadOnlySQLTransaction:
		return "the database is read-only: it is a standby, or default_transaction_read_only is on: connect to the primary, " +
			"as with target_session_attrs=read-write"
	case pgerrcode.ProtocolViolation:
		if strings.Contains(answer.Message, "statement pooling mode") { // PgBouncer's words
			return "the proxy pools single statements: use session pooling, or transaction pooling with --no-prepared-statements"
		}
	case pgerrcode.DuplicatePreparedStatement, pgerrcode.InvalidSQLStatementName:
		return "behind a proxy that pools transactions, such as PgBouncer, add --no-prepared-statements"
	case pgerrcode.InvalidSchemaName, pgerrcode.UndefinedTable, pgerrcode.UndefinedFunction, pgerrcode.UndefinedColumn:
		return `the schema is not installed or out of date: run "` + program.Name + ` migrate", or check --schema`
	}
	return ""
}

var (
	urlPassword     = regexp.MustCompile(`(://[^:/@\s]*:)\S*@`)
	keywordPassword = regexp.MustCompile(`(?i)(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)`)
)

// hideSecrets is the last guard: it hides what looks like a password of a connection string,
// wherever it came from.
func hideSecrets(text string) string {
	text = urlPassword.ReplaceAllString(text, "${1}xxxxx@")
	return keywordPassword.ReplaceAllString(text, "${1}xxxxx")
}
