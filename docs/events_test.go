package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every event has a row in the table of events and every row an event. The row, the
// event's comment and its method level name the same levels.
func TestEveryEventIsDocumented(t *testing.T) {
	page, err := os.ReadFile("events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## The events\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| .* \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		rows[row[1]] = levelsIn(row[2])
	}
	comments, levels := readEvents(t)
	if len(levels) < 60 {
		t.Errorf("found %d events", len(levels))
	}
	if events, documented := slices.Sorted(maps.Keys(levels)), slices.Sorted(maps.Keys(rows)); !slices.Equal(events, documented) {
		t.Errorf("events:          %q\nin docs/events.md: %q", events, documented)
	}
	for name, want := range levels {
		_, logged, _ := strings.Cut(comments[name], " Logged at ")
		if row, comment := rows[name], levelsIn(logged); !slices.Equal(row, want) || !slices.Equal(comment, want) {
			t.Errorf("%s is logged at %q, in docs/events.md at %q, by its comment at %q", name, want, row, comment)
		}
	}
}

// readEvents reads the comments of the events and the levels that they have, by their names.
func readEvents(t *testing.T) (comments map[string]string, levels map[string][]string) {
	t.Helper()
	comments, levels = map[string]string{}, map[string][]string{}
	files, err := filepath.Glob("../event/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				if s, is := d.Specs[0].(*ast.TypeSpec); is {
					comments[s.Name.Name] = strings.Join(strings.Fields(d.Doc.Text()), " ")
				}
			case *ast.FuncDecl:
				if d.Name.Name != "level" {
					continue
				}
				var found []string
				ast.Inspect(d, func(n ast.Node) bool {
					if s, is := n.(*ast.SelectorExpr); is && strings.HasPrefix(s.Sel.Name, "Level") && s.Sel.Name != "Level" {
						found = append(found, levelsIn(strings.ToLower(strings.TrimPrefix(s.Sel.Name, "Level")))...)
					}
					return true
				})
				slices.Sort(found)
				levels[d.Recv.List[0].Type.(*ast.Ident).Name] = slices.Compact(found)
			}
		}
	}
	return comments, levels
}

// levelsIn are the levels that a text names, sorted.
func levelsIn(text string) []string {
	found := regexp.MustCompile(`\b(debug|info|warn|error)\b`).FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}
