package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mostRootFiles is how many files package gworker has at most, besides tests: so many can
// be known by their names.
const mostRootFiles = 24

// Package gworker stays small enough to find one's way in it: few files, none of them
// long, each named in ARCHITECTURE.md.
func TestRootHasFewFiles(t *testing.T) {
	t.Parallel()
	all, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, file := range all {
		name := filepath.Base(file)
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		files++
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(source), "\n"); lines > 450 {
			t.Errorf("%s has %d lines, want about 400 at most: split it, or move a part into internal/", name, lines)
		}
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("ARCHITECTURE.md does not say what is in %s", name)
		}
	}
	if files > mostRootFiles {
		t.Errorf("package gworker has %d files, want at most %d: add to the file of the concept, or move a part into internal/", files, mostRootFiles)
	}
	if files < 10 {
		t.Errorf("found %d files", files)
	}
}
