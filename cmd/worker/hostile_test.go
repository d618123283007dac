package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gworker/gworker/internal/terminal"
)

// evil is what a database may hold and a terminal must not get, with a mark that a
// line must not begin with.
const evil = "x\x1b[2J\x1b]0;t\x07\n" + mark + "\r\ty\u009b31m\u202e\u2066\u2028\u200b\x7f'$(z)"

const mark = "MARKED"

// evilQueue has a job in each state, and evil texts in every column that can hold one.
func evilQueue(t *testing.T) (database string, pool *pgxpool.Pool) {
	t.Helper()
	database, pool = adminQueue(t)
	for _, sql := range []string{
		`update graphile_worker._private_tasks set identifier = $1`,
		`update graphile_worker._private_job_queues set queue_name = $1, locked_by = $1`,
		`update graphile_worker._private_jobs set key = id || $1, last_error = $1, flags = jsonb_build_object($1, true),
			locked_by = case when locked_at is not null then $1 end,
			payload = json_build_object($1, json_build_array($1, 1))`,
		`insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution) values ($1, now(), now())`,
		`insert into graphile_worker._private_workers (id, last_heartbeat_at, metadata)
			select name, now() - interval '1 hour', jsonb_build_object('runtime', $1, 'hostname', $1, 'tasks', jsonb_build_array($1), $1, $1)
			from unnest(array[$1, 'gworker_' || $1]) name`,
		`insert into graphile_worker._gworker_events (kind, job_id, task, queue, key, worker, error, details)
			select kind, 1, $1, $1, $1, $1, case when kind <> 'retry' then $1 end, jsonb_build_object('by', $1, 'database_user', $1, 'reason', $1)
			from unnest(array[$1, 'failed', 'retry']) kind`,
		`insert into graphile_worker._gworker_stats
			select span, date_trunc('minute', now()), $1, $1, 1, 0, 0, 0, 0, 0, 0, '{1}', '{1}' from unnest(array[$1, 'minute']) span`,
		`insert into graphile_worker._gworker_unique (key, task, identifier, added_at, expires_at, job_id) values ($1, $1, $1, now(), now(), 1)`,
	} {
		if _, err := pool.Exec(t.Context(), strings.ReplaceAll(sql, "$1", "$1::text"), evil); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return database, pool
}

// Whatever columns there are to come, they are planted.
func TestEvilQueueFillsEveryText(t *testing.T) {
	_, pool := evilQueue(t)
	rows, err := pool.Query(t.Context(), `select table_name, column_name from information_schema.columns
		where table_schema = 'graphile_worker' and (data_type in ('text', 'character varying', 'json', 'jsonb') or data_type = 'ARRAY' and udt_name <> '_int8')
		and table_name in (select relname from pg_class where relnamespace = 'graphile_worker'::regnamespace and relkind in ('r', 'p') and not relispartition)`)
	if err != nil {
		t.Fatal(err)
	}
	type column struct{ table, name string }
	var columns []column
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.table, &c.name); err != nil {
			t.Fatal(err)
		}
		columns = append(columns, c)
	}
	if err := rows.Err(); err != nil || len(columns) < 10 {
		t.Fatal(err, columns)
	}
	for _, c := range columns {
		var has bool
		sql := fmt.Sprintf("select exists (select from graphile_worker.%s where %s::text like '%%%s%%')", c.table, c.name, mark)
		if err := pool.QueryRow(t.Context(), sql).Scan(&has); err != nil || !has {
			t.Errorf("%v has no evil text (%v)", c, err)
		}
	}
}

// harmless checks text that a terminal gets.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s: no UTF-8: %q", what, text)
	}
	for _, r := range text {
		if r != '\n' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Errorf("%s: %q is written: %q", what, r, text)
			return
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, mark) || strings.HasPrefix(line, "  "+mark) {
			t.Errorf("%s: a text has made a line of its own:\n%s", what, text)
			return
		}
	}
}

// evilTasks is a folder with a task and a crontab whose names and texts are evil.
func evilTasks(t *testing.T) (dir, crontab string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tasks"+evil)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"task" + evil:  {"#!/bin/sh\nprintf '\\033[2J\\377\\r\\302\\233 \\n'; printf 'no\\033[31m\\n" + mark + "\\n' >&2; exit 3\n", 0o755},
		"notes" + evil: {"", 0o644}, "script" + evil + ".sh": {"", 0o644}, "bad\xff\x1b" + mark: {"", 0o755},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(file.text), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	crontab = filepath.Join(dir, "crontab"+evil)
	text := "0 4 * * * other ?id=a {\"a\":\"\u009b\u202e\"}\n0 5 * * * ot\u202eher ?id=\u009b {\"\x1b\":1}\n\u009b\x1b\u2028 x\n* * * * * \xff\x1b[2J ?x=\r\u202e\n"
	if err := os.WriteFile(crontab, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, crontab
}

// What other people wrote does nothing to the terminal of one who looks at it, and
// --json has it as it is.
func TestEvilTextsAreShownEscaped(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	database, pool := evilQueue(t)
	tasks, crontab := evilTasks(t)
	running := "3" // locked by evil
	type call struct {
		args  []string
		shows bool // the text, or with --json its value
	}
	show := func(args ...string) call { return call{args, true} }
	quiet := func(args ...string) call { return call{args, false} }
	calls := map[string][]call{ // by command; "" is a command line without one
		"list":  {show("--payload"), show("--json", "--payload"), quiet("--ids"), show("--task", evil), quiet("--state", evil), quiet("--order", evil)},
		"show":  {show("1", "2", running, "4", "5", "6"), show("--json", "1"), show("--key", "no"+evil)},
		"stats": {show(), show("--json"), show("--since", "1h"), show("--since", "1h", "--json"), quiet("--since", "1h", "--by", evil), quiet("--since", evil)},
		"history": {
			show(), show("--json"), show("1"), show("1", "--json"), show("--task", evil, "--error", evil), show("--kind", "retry"),
			quiet("--kind", evil), quiet("--cursor", evil), quiet("--since", evil), quiet(evil),
		},
		"history size": {quiet(), quiet("--json")}, "history uninstall": {quiet(), quiet(evil)},
		"queues":  {show(), show("--json"), show("--locked"), quiet("no" + evil)},
		"workers": {show(), show("--json")},
		"doctor":  {show("--all"), show("--json")},
		"migrate": {quiet(), quiet("--status"), quiet("--schema", "sch\x1bema\n"+mark+"\u202e", "--status")},
		"complete": {
			show("1", running, "--dry-run"), show("1", running, "--dry-run", "--json"), quiet(evil),
		},
		"fail":       {show("1", "5", running, "--reason", evil), show("6", "--reason", evil, "--json")},
		"retry":      {show("5", "6", running)},
		"grant":      {quiet("reader", evil), quiet("reader", evil, "--dry-run")},
		"revoke":     {quiet("reader", evil), quiet("reader", evil, "--dry-run")},
		"reschedule": {show("5", "6", running, "--run-at", "1h", "--attempts", "3"), quiet("5", "--run-at", evil)},
		"remove":     {show("1"+evil, "3"+evil, "no"+evil, "--dry-run"), show("1"+evil, "no"+evil), show("--id", "2"), show("4"+evil, "--json")},
		"cancel":     {show(running, "--reason", evil), show("5", "--reason", evil), show("6", "--reason", evil), show("6", "--json"), quiet(evil)},
		"sweep":      {show("--dry-run"), show("--dry-run", "--json"), show()},
		"force-unlock": {
			show(evil, "none"+evil, "--dry-run"), show(evil, "--dry-run", "--json"), show(evil, "none"+evil),
		},
		"cleanup": {show("--tasks", tasks, "--dry-run"), show("GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"), quiet(evil)},
		"add": {
			show("task"+evil, "--queue", evil, "--key", evil, "--flag", evil), show("task"+evil, "--payload", `"\u009b"`, "--flag", evil, "--json"),
			quiet("x", "--payload", evil), quiet("x", "--key-mode", evil), quiet("x", "--payload-file", "/no/"+evil),
		},
		"crontab check": {quiet(crontab), quiet(crontab, "--json"), show("/no/" + evil)},
		"run":           {show("--once", "--tasks", tasks), quiet("--once", "--tasks", tasks, "--log-level", "debug"), show("--once", "--tasks", "/no/"+evil), quiet("--once", "--crontab", crontab)},
		"dev":           {show("--once", "--tasks", tasks), quiet("--once", "--tasks", tasks, "--log-level", "debug")},
		"version":       {quiet()}, "completion bash": {quiet()}, "completion zsh": {quiet()}, "completion fish": {quiet()}, "completion powershell": {quiet()},
		"crontab": {quiet(), quiet(evil)}, "help": {quiet(), quiet(evil)}, "completion": {quiet()}, "": {quiet(evil), quiet("--" + evil), quiet("-c", "host="+evil)},
	}
	// Those that change things come last.
	order := []string{"complete", "remove", "retry", "reschedule", "fail", "cancel", "add", "run", "dev", "sweep", "force-unlock", "cleanup"}
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int {
		return slices.Index(order, a) - slices.Index(order, b)
	})
	for _, name := range names {
		for _, c := range calls[name] {
			args := append(strings.Fields(name), c.args...)
			if slices.Contains([]string{"remove", "sweep"}, name) && !slices.Contains(args, "--dry-run") {
				// These have changed what the next one shows.
				if _, err := pool.Exec(t.Context(), `update graphile_worker._private_jobs set attempts = least(attempts, 1), max_attempts = 25`); err != nil {
					t.Fatal(err)
				}
			}
			if name == "cleanup" && len(c.args) > 2 && !slices.Contains(args, "--dry-run") {
				for _, table := range []string{"jobs", "workers"} {
					if _, err := pool.Exec(t.Context(), "delete from graphile_worker._private_"+table); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !slices.Contains([]string{"", "crontab", "crontab check", "version", "help", "completion"}, name) && !strings.HasPrefix(name, "completion") {
				args = append(args, "-c", database)
			}
			what := fmt.Sprintf("%q", args)
			r := worker(t, "", args...)
			if !strings.HasPrefix(name, "completion") { // programs for shells, without a foreign word
				harmless(t, what, r.out)
				harmless(t, what, r.err)
			}
			if slices.Contains(args, "--json") {
				if decoder := json.NewDecoder(strings.NewReader(r.out)); c.shows && !holds(t, what, decoder, evil) {
					t.Errorf("%s: the text is not as it was: %s", what, r.out)
				}
				continue
			}
			if c.shows && !strings.Contains(r.out+r.err, `x\u001b[2J`) && !strings.Contains(r.out+r.err, `x\x1b[2J`) {
				t.Errorf("%s shows nothing: %d\n%s%s", what, r.status, r.out, r.err)
			}
		}
	}
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if _, ok := calls[strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "worker"), " ")]; !ok {
			t.Errorf("%s is not tried", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	root := newRoot(stdio{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	look(root)
}

// holds reports whether one of the strings of JSON values has the part.
func holds(t *testing.T, what string, decoder *json.Decoder, part string) bool {
	t.Helper()
	found := false
	var look func(value any)
	look = func(value any) {
		switch v := value.(type) {
		case string:
			found = found || strings.Contains(v, part)
		case []any:
			for _, element := range v {
				look(element)
			}
		case map[string]any:
			for key, element := range v {
				look(key)
				look(element)
			}
		}
	}
	for decoder.More() {
		var value any
		if err := decoder.Decode(&value); err != nil {
			t.Errorf("%s: %v", what, err)
			return false
		}
		look(value)
	}
	return found
}

// The log for people has colors and nothing else that a terminal acts on.
func TestConsoleLogIsHarmless(t *testing.T) {
	var out bytes.Buffer
	logger := consoleLogger(terminal.NewWriter(&out), zap.DebugLevel, true)
	bridge(logger.With(zap.String("with", evil))).Error(evil+"\xff", "attribute", evil, "err", fmt.Errorf("oh %s\xff", evil), evil, 1)
	logger.Log(zapcore.InfoLevel, evil, zap.Strings("list", []string{evil}))
	text := out.String()
	for _, colors := range []string{"\x1b[31mERROR\x1b[0m", "\x1b[34mINFO\x1b[0m"} {
		if !strings.Contains(text, colors) {
			t.Errorf("no color %q in %q", colors, text)
		}
		text = strings.ReplaceAll(text, colors, "")
	}
	harmless(t, "log", strings.ReplaceAll(text, "\t", " "))
	if n := strings.Count(text, "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, text)
	}
}
