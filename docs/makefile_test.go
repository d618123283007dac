package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// goCommand is a command of Go that checks something, with its arguments.
var goCommand = regexp.MustCompile(`(?:[A-Z_]+=\S+ )*\bgo (?:-C \S+ )?(?:vet|test|generate|run|build -C \S+) [^\n&|;)>#]*`)

// The Makefile has the commands of .ci/run, one for one.
func TestMakefileRunsWhatCIRuns(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := commands(string(makefile)), commands(string(script))
	for _, line := range unlike(ours, theirs) {
		t.Errorf("the Makefile has %q, and .ci/run has not: change one of them, or mark the line with # not in CI", line)
	}
	for _, line := range unlike(theirs, ours) {
		t.Errorf(".ci/run has %q, and the Makefile has not", line)
	}
	if len(ours) < 8 {
		t.Errorf("found %d commands", len(ours))
	}
}

// commands are the commands that check something. Where a program is built to does
// not matter, and that Rust workers are built is CI's own.
func commands(text string) map[string]bool {
	output := regexp.MustCompile(` -o "?\S+`)
	found := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.Contains(line, "# not in CI") || strings.Contains(line, "interop/rust/build") || strings.Contains(line, "fail \"") {
			continue
		}
		for _, command := range goCommand.FindAllString(output.ReplaceAllString(line, ""), -1) {
			found[strings.TrimSpace(command)] = true
		}
	}
	return found
}

func unlike(these, those map[string]bool) (missing []string) {
	for line := range these {
		if !those[line] {
			missing = append(missing, line)
		}
	}
	return missing
}

// .ci/run names the suites that need GWORKER_HEAVY.
func TestCIRunsEveryHeavySuite(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	heavy := regexp.MustCompile(`(?m)^GWORKER_HEAVY=1 go test .*$`).FindString(string(script))
	files, err := filepath.Glob("../tests/*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	suites := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(source), "testdb.HeavyMain(") {
			continue
		}
		suites++
		if dir := "./tests/" + filepath.Base(filepath.Dir(file)); !slices.Contains(strings.Fields(heavy), dir) {
			t.Errorf("%s has a heavy suite, which .ci/run leaves out: %q", dir, heavy)
		}
	}
	if suites < 3 {
		t.Errorf("found %d suites", suites)
	}
}
