package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/testdb"
)

// The path of a failed job, as a person follows it.
func TestHistoryCommands(t *testing.T) {
	url := testdb.Migrated(t)
	dir := tasksDir(t, map[string]string{"mail.sh": "#!/bin/sh\nexit 3\n", "fine.sh": "#!/bin/sh\n"})
	must := func(words ...string) string {
		t.Helper()
		r := worker(t, "", append(words, "-c", url)...)
		r.want(t, 0)
		return r.out
	}
	must("add", "mail", "--max-attempts", "1", "--key", "k\x1b[31m")
	must("add", "fine")
	must("run", "--once", "--tasks", dir)

	id := strings.TrimSpace(must("list", "--ids"))
	for _, words := range [][]string{
		{"history", id}, {"history"}, {"history", "--task", "mail", "--kind", "permanently_failed", "--since", "1h", "--error", "CODE 3"},
	} {
		out := must(words...)
		if !strings.Contains(out, "permanently_failed") || !strings.Contains(out, "1/1") || !strings.Contains(out, "exited with code 3") || strings.Contains(out, "\x1b") {
			t.Errorf("%v prints\n%s", words, out)
		}
	}
	if out := must("history", "--until", "1h"); out != "no events\n" {
		t.Errorf("prints %q", out)
	}
	out := must("stats", "--since", "1h")
	if lines := strings.Split(out, "\n"); len(lines) < 3 || !strings.HasPrefix(lines[1], "fine  1") || !strings.HasPrefix(lines[2], "mail  0") {
		t.Errorf("prints\n%s", out)
	}
	var stats struct {
		Tasks []struct {
			Completed     int                `json:"completed"`
			WaitedSeconds map[string]float64 `json:"waited_seconds"`
		}
	}
	if err := json.Unmarshal([]byte(must("stats", "--since", "1h", "--by", "hour", "--task", "fine", "--json")), &stats); err != nil || len(stats.Tasks) != 1 || stats.Tasks[0].Completed != 1 || stats.Tasks[0].WaitedSeconds["p50"] <= 0 {
		t.Errorf("%+v, %v", stats, err)
	}

	must("retry", id, "--as", "ada\x1b")
	var found gworker.JobHistory
	if err := json.Unmarshal([]byte(must("history", id, "--json")), &found); err != nil || len(found.Events) != 2 || found.Events[1].Kind != history.ActionRetry {
		t.Errorf("%+v, %v", found, err)
	}
	if out := must("history", "--kind", "retry"); !strings.Contains(out, `by ada\u001b as `) {
		t.Errorf("prints\n%s", out)
	}
	must("complete", id)
	if out := must("history", id); !strings.Contains(out, "is gone") || !strings.Contains(out, "complete") {
		t.Errorf("prints\n%s", out)
	}
	if out := must("history", "size"); !strings.Contains(out, "_gworker_stats") {
		t.Errorf("prints\n%s", out)
	}
	if out := must("history", "uninstall", "--yes"); out != "the tables of history are gone\n" {
		t.Errorf("prints %q", out)
	}
	if out := must("migrate", "--no-history"); !strings.Contains(out, "nothing to do") {
		t.Errorf("prints %q", out)
	}
	if out := must("history", "size"); out != "there are no tables of history\n" {
		t.Errorf("prints %q", out)
	}
	if out := must("migrate"); !strings.Contains(out, "made the tables of history") {
		t.Errorf("prints %q", out)
	}
}

func TestHistoryRefuses(t *testing.T) {
	url, dir := testdb.Migrated(t), tasksDir(t, map[string]string{"x.sh": "#!/bin/sh\n"})
	for words, says := range map[string]string{
		"history 99":                        "no such job",
		"history x":                         "ids are numbers",
		"history 1 2":                       "at most 1",
		"history 1 --task t":                "--task is for events of all jobs",
		"history --kind exploded":           `--kind is "exploded"`,
		"history --since soon":              "--since",
		"history --limit 1001":              "1 to 1000",
		"history --cursor x":                "not the cursor",
		"history uninstall":                 "--yes",
		"stats --by hour":                   "goes with --since",
		"stats --since 1h --by week":        "minute, hour or day",
		"stats --since 1h --until 2h":       "not before --until",
		"stats --since 1h --max-queues 3":   "history knows no queues",
		"run --history all --once":          "off or failures",
		"run --history-retention 1h --once": "at least 24h",
	} {
		r := worker(t, "", append(strings.Fields(strings.ReplaceAll(words, "run ", "run --tasks "+dir+" ")), "-c", url)...)
		r.want(t, r.status, says) // an error is one line
		if r.status == 0 {
			t.Errorf("%s is taken: %q", words, r.out)
		}
	}
}
