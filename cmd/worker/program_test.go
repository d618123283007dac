package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestProgramName(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/bin/gworker": "gworker", "./worker": "worker", "gworker.exe": "gworker", "jobs-2": "jobs-2",
		"/tmp/go-build1/worker.test": "worker", "": "worker", "/": "worker", "a b": "worker", "x\x1b[31m": "worker",
	} {
		if got := programName(path); got != want {
			t.Errorf("%q is called %q, want %q", path, got, want)
		}
	}
}

// startedAs returns a path under which this binary is called by a name.
func startedAs(t *testing.T, name string) string {
	t.Helper()
	itself, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(itself, link); err != nil {
		t.Skip(err) // Windows, for most accounts
	}
	return link
}

// What the library says of the binary has its name, too.
func TestTheLibraryUsesTheNameItWasStartedWith(t *testing.T) {
	database := testdb.Empty(t)
	for _, name := range []string{"gworker", "worker", "jobs-2"} {
		cmd := exec.Command(startedAs(t, name), "doctor", "-c", database, "-s", "elsewhere")
		cmd.Env = append(os.Environ(), asWorker+"=1")
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), "    "+name+" migrate --schema 'elsewhere'\n") {
			t.Errorf("%s doctor does not say %s migrate:\n%s", name, name, out)
		}
	}
}

// TestTheNameItWasStartedWith: help, messages and the version use it.
func TestTheNameItWasStartedWith(t *testing.T) {
	link := startedAs(t, "gworker")
	for args, want := range map[string][]string{
		"--help":         {"gworker runs jobs", `Try "gworker dev" first`, "gworker [command]", "gworker [command] --help"},
		"run --help":     {"gworker run [flags]", "  gworker run --once", `"gworker crontab check" checks one`},
		"cancel --help":  {"--ids | gworker cancel -"},
		"grant --help":   {`runs jobs: "gworker run"`, "  gworker grant worker jobs"},
		"version":        {"gworker "},
		"--version":      {"gworker "},
		"run --nonsense": {"gworker: ", "see gworker run --help"},
	} {
		cmd := exec.Command(link, strings.Fields(args)...)
		cmd.Env = append(os.Environ(), asWorker+"=1")
		out, _ := cmd.CombinedOutput()
		for _, part := range want {
			if !strings.Contains(string(out), part) {
				t.Errorf("gworker %s lacks %q:\n%s", args, part, out)
			}
		}
		if strings.Contains(strings.ReplaceAll(string(out), "gworker", ""), "worker "+strings.Fields(args)[0]+" ") {
			t.Errorf("gworker %s speaks of another program:\n%s", args, out)
		}
	}
}
