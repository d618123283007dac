package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/testdb"
)

// fixtureVariable names the SQL file that this program carries out in place of
// tests, on DATABASE_URL: see the wrapper of runShell.
const fixtureVariable = "GWORKER_DOCS_FIXTURE"

func TestMain(m *testing.M) {
	if file := os.Getenv(fixtureVariable); file != "" {
		if err := carryOut(context.Background(), os.Getenv("DATABASE_URL"), file); err != nil {
			fmt.Fprintf(os.Stderr, "preparing %s: %v\n", file, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testdb.Main(m)
}

func carryOut(ctx context.Context, url, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, string(text)).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// Every shell snippet runs, but for those that are marked no-run. Those of a page
// run in their order, in one folder, on one database.
func TestShellSnippetsRun(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the snippets are for a POSIX shell")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	var order []string
	byPage := map[string][]snippet{}
	run, left := 0, 0
	for _, s := range slices.Concat(snippets(t, "sh"), snippets(t, "bash"), snippets(t, "shell")) {
		if s.marked("no-run") {
			left++
			continue
		}
		run++
		if byPage[s.page] == nil {
			order = append(order, s.page)
		}
		byPage[s.page] = append(byPage[s.page], s)
	}
	// Those that are left out go on until Ctrl-C, measure for hours, or need hosts
	// and versions that a test has not.
	const mayBeLeft = 12
	if run < 8 || left > mayBeLeft {
		t.Errorf("%d snippets run, and %d are marked no-run, of at most %d", run, left, mayBeLeft)
	}
	binary := filepath.Join(t.TempDir(), "gworker")
	build := exec.Command("go", "build", "-o", binary, "../cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, page := range order {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			shell := newShell(t, bash, binary, strings.TrimSuffix(filepath.Base(page), ".md"))
			for _, s := range byPage[page] {
				if err := shell.run(s); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// indented is a command in a block without a fence, which TestShellSnippetsRun does
// not see. Synopses have capitals or brackets.
var indented = regexp.MustCompile(`(?m)^ {4}(?:g?worker|go|psql) [^A-Z\[\n]*$`)

// Shell snippets are fenced.
func TestShellSnippetsAreFenced(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range indented.FindAllString(fenced.ReplaceAllString(string(text), ""), -1) {
			t.Errorf("%s has a command that is indented and not fenced with ```sh: %s", page, strings.TrimSpace(line))
		}
	}
}

// A snippet that does not run is found, whichever of its commands fails.
func TestShellSnippetsThatDoNotRun(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	shell := &shell{bash: bash, dir: t.TempDir(), env: os.Environ()}
	for text, works := range map[string]bool{
		"false\ntrue\n": false, "false | true\n": false, "echo $not_set\n": false, "gworker-that-is-not-there\n": false,
		"true | true # done\n": true,
	} {
		if err := shell.run(snippet{page: "page.md", line: 3, text: text}); (err == nil) != works {
			t.Errorf("%q gives %v", text, err)
		}
	}
}

// A shell runs the snippets of a page.
type shell struct {
	bash, dir string
	env       []string
}

// newShell makes a folder and a database for a page, with what its snippets take
// for granted: the files of testdata/PAGE, and the rows of testdata/PAGE.sql, which
// are there anew before each command of gworker, so that one line does not depend on
// what another has done.
func newShell(t *testing.T, bash, binary, page string) *shell {
	t.Helper()
	s := &shell{bash: bash, dir: t.TempDir()}
	bin := t.TempDir()
	prepare := ""
	fixture, err := filepath.Abs(filepath.Join("testdata", page+".sql"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fixture); err == nil {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		prepare = fmt.Sprintf("%s='%s' '%s' || exit 99\n", fixtureVariable, fixture, self)
	}
	script := fmt.Sprintf("#!/bin/sh\n%sexec '%s' \"$@\"\n", prepare, binary)
	if err := os.WriteFile(filepath.Join(bin, "gworker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	files := filepath.Join("testdata", page)
	if _, err := os.Stat(files); !errors.Is(err, fs.ErrNotExist) {
		if err := os.CopyFS(s.dir, os.DirFS(files)); err != nil {
			t.Fatal(err)
		}
	}
	s.env = append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HOME="+s.dir, "DATABASE_URL="+testdb.Migrated(t))
	return s
}

func (s *shell) run(snippet snippet) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bash, "-euo", "pipefail", "-c", snippet.text)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", snippet.name(), err, &out)
	}
	return nil
}
