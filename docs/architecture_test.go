package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// code is what a page names in backquotes.
	code = regexp.MustCompile("`([^`\n]+)`")
	// inFile is how ARCHITECTURE.md says where something is: `name` in `file`, or
	// statement `Name` in `file`.
	inFile = regexp.MustCompile("`([A-Za-z.]+)` (?:in|of) `([^`\n]+)`")
	path   = regexp.MustCompile(`^[a-z_][\w./*-]*$`)
)

// isPath reports whether a name is one of a file or folder of the repository.
func isPath(name string) bool {
	if !path.MatchString(name) {
		return false
	}
	switch filepath.Ext(name) {
	case ".go", ".sql", ".md", ".txt", ".yml", ".yaml":
		return true
	}
	first, _, nested := strings.Cut(name, "/")
	return nested && first != "go" || first == "bench" || first == "tools" || first == "tests" || first == "db"
}

// What ARCHITECTURE.md names is there: files, folders, and the functions and
// statements in them.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"../ARCHITECTURE.md", "../CONTRIBUTING.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		missing, found := missingPaths(string(text))
		for _, m := range missing {
			t.Errorf("%s names %s", filepath.Base(page), m)
		}
		if want := map[string]int{"../ARCHITECTURE.md": 50, "../CONTRIBUTING.md": 5}[page]; found < want {
			t.Errorf("%s names only %d paths", page, found)
		}
	}
}

// A path that is not there is found, and a function that is not in its file.
func TestArchitectureFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	missing, _ := missingPaths("`internal/nowhere/x.go`, `db/queries/claim.sql`, `ClaimJobs` in `db/queries/claim.sql`, `NoJobs` in `db/queries/claim.sql`, `internal/none*`")
	want := "internal/nowhere/x.go, which does not exist|internal/none*, which does not exist|NoJobs in db/queries/claim.sql, where it is not"
	if got := strings.Join(missing, "|"); got != want {
		t.Errorf("got %s", got)
	}
}

func missingPaths(text string) (missing []string, found int) {
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		if !isPath(m[1]) {
			continue
		}
		found++
		if files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(m[1]))); err != nil || len(files) == 0 {
			missing = append(missing, m[1]+", which does not exist")
		}
	}
	for _, m := range inFile.FindAllStringSubmatch(text, -1) {
		if !isPath(m[2]) {
			continue
		}
		name := m[1][strings.LastIndex(m[1], ".")+1:]
		source, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(m[2])))
		if err == nil && !regexp.MustCompile(`\b`+name+`\b`).Match(source) {
			missing = append(missing, m[1]+" in "+m[2]+", where it is not")
		}
	}
	return missing, found
}
