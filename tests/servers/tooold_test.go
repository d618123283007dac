package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/tests/servers/programs"
)

func TestMain(m *testing.M) { testdb.HeavyMain(m) }

// A server that is too old is refused in words that every Graphile Worker uses,
// and nothing is changed on it.
func TestTooOldAServer(t *testing.T) {
	server, err := devpg.Start(t.Context(), devpg.Options{
		Programs: programs.Require(t, programs.TooOld), Fast: true, IgnoreEnvironment: true, Database: "queue",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	const says = "This version of Graphile Worker requires PostgreSQL v12.0 or greater (detected `server_version_num` = 1100"
	refused := func(what string, err error) {
		t.Helper()
		var version *migrate.ServerVersionError
		if !errors.As(err, &version) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	config := gworker.ClientConfig{DatabaseURL: server.URL("queue")}
	client, err := gworker.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	refused("Migrate", client.Migrate(t.Context()))
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: server.URL("queue"),
		Tasks:       []gworker.Task{gworker.NewTask("t", func(context.Context, *gworker.Job[any]) error { return nil })},
	})
	if err != nil {
		t.Fatal(err)
	}
	refused("Run", worker.RunOnce(t.Context()))
	status, err := client.SchemaStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused("SchemaStatus", status.Refusal)
	report, err := client.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range report.Findings {
		found = found || f.Severity == gworker.SeverityProblem && strings.Contains(f.What, says)
	}
	if !found {
		t.Errorf("the doctor found %+v", report.Findings)
	}
	pool := testdb.Pool(t, server.URL("queue"))
	var n int
	if err := pool.QueryRow(t.Context(), "select count(*) from pg_namespace where nspname = 'graphile_worker'").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d schemas were made, %v", n, err)
	}
}

func TestVersions(t *testing.T) {
	for list, want := range map[string]int{"": 7, "12,18": 2, "15": 1} {
		if got, err := parse(list); err != nil || len(got) != want {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	for _, list := range []string{"11", "19", "x", "12,,13"} {
		if got, err := parse(list); err == nil {
			t.Errorf("%q: %v", list, got)
		}
	}
}

// A test that was renamed or moved would otherwise be left out without a word.
func TestQuickTestsExist(t *testing.T) {
	defined := map[string]bool{}
	for _, dir := range quickPackages {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(source), -1) {
				defined[match[1]] = true
			}
		}
	}
	for _, name := range quickTests {
		if !defined[name] {
			t.Errorf("none of %v has %s", quickPackages, name)
		}
	}
}
