package gworker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every event has a row in the table of events.
func TestEveryEventIsDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## The events\n")
	table, _, _ = strings.Cut(table, "\n## ")
	files, err := filepath.Glob("event/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			method, ok := d.(*ast.FuncDecl)
			if !ok || method.Name.Name != "event" || method.Recv == nil {
				continue
			}
			found++
			name := method.Recv.List[0].Type.(*ast.Ident).Name
			if !strings.Contains(table, "\n| `"+name+"` | ") {
				t.Errorf("docs/events.md has no row for %s", name)
			}
		}
	}
	if found < 40 {
		t.Errorf("found %d events", found)
	}
}
