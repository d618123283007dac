// Package docs tests the project's Markdown pages: that their Go snippets
// compile, that their shell snippets run, that README is short, and that what
// ARCHITECTURE.md names is there.
//
// For whoever writes a page:
//
//   - A ```go snippet that begins with "package" is a whole file and must compile
//     as it stands.
//   - Any other is a fragment: declarations, or the statements of a function that
//     returns an error. Packages of knownPackages need no import, and names that the
//     snippet does not declare, such as ctx, client and Email, come from
//     testdata/prelude.go: add there what a new snippet needs.
//   - A line that is only "..." stands for what is left out.
//   - ```go no-check leaves a snippet out: code of another project.
package docs

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// knownPackages are those that fragments may use without an import, by the names
// that they use.
var knownPackages = map[string]string{
	"context":     "context",
	"errors":      "errors",
	"fmt":         "fmt",
	"goleak":      "go.uber.org/goleak",
	"gworker":     module,
	"gworkertest": module + "/gworkertest",
	"event":       module + "/event",
	"history":     module + "/history",
	"json":        "encoding/json",
	"log":         "log",
	"os":          "os",
	"pgx":         "github.com/jackc/pgx/v5",
	"pgxpool":     "github.com/jackc/pgx/v5/pgxpool",
	"slog":        "log/slog",
	"sql":         "database/sql",
	"strings":     "strings",
	"testing":     "testing",
	"time":        "time",
}

const module = "github.com/gworker/gworker"

// A snippet is a fenced block of a page.
type snippet struct {
	page  string // from the root of the repository
	line  int    // of its first line
	lang  string
	marks []string // what else stands behind the fence
	text  string
}

func (s snippet) name() string           { return fmt.Sprintf("%s:%d", s.page, s.line) }
func (s snippet) marked(as string) bool  { return slices.Contains(s.marks, as) }
func (s snippet) lineDirective() string  { return fmt.Sprintf("//line %s:%d\n", s.page, s.line) }
func (s snippet) isFile() bool           { return strings.HasPrefix(s.text, "package ") }
func (s snippet) withoutElision() string { return elision.ReplaceAllString(s.text, "") }

var (
	opening = regexp.MustCompile("^(\\s*)```([A-Za-z]+)(.*)$")
	elision = regexp.MustCompile(`(?m)^\s*\.\.\.\s*$`)
)

// pages are all Markdown files of the repository, from its root.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "node_modules", "testdata", "target"}, entry.Name()):
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(path, ".md"):
			page, err := filepath.Rel("..", path)
			found = append(found, filepath.ToSlash(page))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// snippets are all snippets of a language, in the order of their pages.
func snippets(t *testing.T, lang string) []snippet {
	t.Helper()
	var found []snippet
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range snippetsOf(page, string(text)) {
			if s.lang == lang {
				found = append(found, s)
			}
		}
	}
	return found
}

func snippetsOf(page, text string) (found []snippet) {
	var open *snippet
	var indent string
	for i, line := range strings.Split(text, "\n") {
		if open != nil {
			if strings.TrimSpace(line) == "```" {
				found, open = append(found, *open), nil
			} else {
				open.text += strings.TrimPrefix(line, indent) + "\n"
			}
		} else if m := opening.FindStringSubmatch(line); m != nil {
			indent = m[1]
			open = &snippet{page: page, line: i + 2, lang: m[2], marks: strings.Fields(m[3])}
		}
	}
	return found
}

// Every Go snippet compiles against this module.
func TestGoSnippetsCompile(t *testing.T) {
	t.Parallel()
	all := snippets(t, "go")
	if len(all) < 40 {
		t.Errorf("found %d snippets", len(all))
	}
	c := newCompiler(t, all)
	for _, s := range all {
		if s.marked("no-check") {
			continue
		}
		for _, err := range c.compile(t, s) {
			t.Errorf("%v", err)
		}
	}
}

// What makes snippets wrong is found, and what does not is let through.
func TestGoSnippetsThatDoNotCompile(t *testing.T) {
	t.Parallel()
	c := newCompiler(t, nil)
	for text, want := range map[string]string{
		"package main\n\nfunc main() { x := 1 }\n":                         "page.md:12: declared and not used: x",
		"package main\n\nimport \"fmt\"\n\nfunc main() {}\n":               `page.md:12: "fmt" imported and not used`,
		"job, err := client.AddJob(ctx, gworker.JobSpec{Tsk: \"x\"})\n":    "unknown field Tsk",
		"_, err = client.RemoveAll(ctx)\n":                                 "client.RemoveAll undefined",
		"func f() { return gworker.Discard(nil) }\n":                       "too many return values",
		"x := nowhere.Call()\n":                                            "undefined: nowhere",
		"type Email struct{ To string }\n\nvar e = Email{Subject: \"\"}\n": "unknown field Subject",
		"if err != nil {\n":                                                "page.md:",
		"func (":                                                           "page.md:10",
		"gworker.Config{Concurrency: \"10\"}\n":                            "cannot use",
	} {
		errs := c.compile(t, snippet{page: "page.md", line: 10, lang: "go", text: text})
		if !strings.Contains(fmt.Sprint(errs), want) {
			t.Errorf("%q gives %v, not %q", text, errs, want)
		}
	}
	for _, text := range []string{
		"job, err := client.AddJob(ctx, gworker.JobSpec{Task: \"x\"})\n...\njob, err = client.AddJob(ctx, gworker.JobSpec{})\n",
		"gworker.Config{Concurrency: 10}\n",
		"if err != nil {\n\treturn err\n}\n",
		"import \"time\"\n\nvar d time.Duration\n",
		"func TestIt(t *testing.T) {\n\t...\n}\n",
		"return gworker.Snooze(time.Minute)\nreturn nil\n",
	} {
		if errs := c.compile(t, snippet{page: "page.md", line: 10, lang: "go", text: text}); errs != nil {
			t.Errorf("%q gives %v", text, errs)
		}
	}
}

// A compiler checks snippets, with the packages that they import as they are
// built for this module.
type compiler struct {
	importer types.Importer
	fset     *token.FileSet
}

func newCompiler(t *testing.T, all []snippet) *compiler {
	t.Helper()
	wanted := map[string]bool{}
	for _, path := range knownPackages {
		wanted[path] = true
	}
	sources := []string{prelude(t)}
	for _, s := range all {
		if !s.marked("no-check") {
			sources = append(sources, s.text)
		}
	}
	for _, source := range sources {
		// A fragment of statements does not parse, and has no imports.
		if !strings.HasPrefix(source, "package ") {
			source = "package p\n" + source
		}
		file, _ := parser.ParseFile(token.NewFileSet(), "", source, parser.ImportsOnly)
		if file != nil {
			for _, i := range file.Imports {
				wanted[strings.Trim(i.Path.Value, `"`)] = true
			}
		}
	}
	fset := token.NewFileSet()
	return &compiler{fset: fset, importer: importerOf(fset, listed(t, slices.Collect(maps.Keys(wanted))...))}
}

func prelude(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/prelude.go")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// compile says what is wrong with a snippet, nil for nothing.
func (c *compiler) compile(t *testing.T, s snippet) (errs []error) {
	t.Helper()
	if s.isFile() {
		file, err := parser.ParseFile(c.fset, "", s.lineDirective()+s.text, parser.SkipObjectResolution)
		if err != nil {
			return []error{err}
		}
		return c.check([]*ast.File{file}, func(types.Error) bool { return true })
	}
	file, err := c.fragment(s)
	if err != nil {
		return []error{err}
	}
	around, err := parser.ParseFile(c.fset, "docs/testdata/prelude.go", prelude(t), parser.SkipObjectResolution)
	if err != nil {
		return []error{err}
	}
	around.Name = file.Name
	hide(around, declared(file))
	// What a fragment declares and does not use is for what comes after it.
	return c.check([]*ast.File{around, file}, func(err types.Error) bool { return !err.Soft })
}

// fragment is the file that a fragment stands for.
func (c *compiler) fragment(s snippet) (*ast.File, error) {
	body := s.lineDirective() + s.withoutElision()
	declarations := func(imports string) string { return "package p\n" + imports + body }
	statements := func(imports string) string {
		return "package p\n" + imports + "func _() error {\n" + body + "panic(0)\n}\n"
	}
	form := declarations
	file, err := parser.ParseFile(token.NewFileSet(), "", form(""), parser.SkipObjectResolution)
	if err != nil {
		form = statements
		if begins := strings.Fields(s.text); len(begins) > 0 && slices.Contains([]string{"import", "type"}, begins[0]) {
			return nil, err
		}
		if file, err = parser.ParseFile(token.NewFileSet(), "", form(""), parser.SkipObjectResolution); err != nil {
			return nil, err
		}
	}
	imported := map[string]bool{}
	for _, i := range file.Imports {
		imported[strings.Trim(i.Path.Value, `"`)] = true
	}
	var imports strings.Builder
	ast.Inspect(file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if name, ok := selector.X.(*ast.Ident); ok {
				if path := knownPackages[name.Name]; path != "" && !imported[path] {
					imported[path] = true
					fmt.Fprintf(&imports, "import %q\n", path)
				}
			}
		}
		return true
	})
	if file, err = parser.ParseFile(c.fset, "", form(imports.String()), parser.SkipObjectResolution); err != nil {
		return nil, err
	}
	// A value by itself, such as a Config, is shown and not used.
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "_" {
			for i, statement := range f.Body.List {
				if value, ok := statement.(*ast.ExprStmt); ok {
					if _, call := value.X.(*ast.CallExpr); !call {
						f.Body.List[i] = &ast.AssignStmt{
							Lhs: []ast.Expr{ast.NewIdent("_")}, Tok: token.ASSIGN, TokPos: value.Pos(), Rhs: []ast.Expr{value.X},
						}
					}
				}
			}
		}
	}
	return file, nil
}

func (c *compiler) check(files []*ast.File, counts func(types.Error) bool) (errs []error) {
	config := types.Config{Importer: c.importer, GoVersion: "go1.26", Error: func(err error) {
		var problem types.Error
		if !errors.As(err, &problem) || counts(problem) {
			errs = append(errs, err)
		}
	}}
	_, _ = config.Check(files[0].Name.Name, c.fset, files, nil) // config.Error has all errors
	return errs
}

// declared are the names that a file declares at its top.
func declared(file *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names[d.Name.Name] = d.Recv == nil
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names[name.Name] = true
					}
				}
			}
		}
	}
	return names
}

// hide takes declarations of the prelude away that a snippet has itself.
func hide(around *ast.File, names map[string]bool) {
	around.Decls = slices.DeleteFunc(around.Decls, func(d ast.Decl) bool {
		switch d := d.(type) {
		case *ast.FuncDecl:
			return names[d.Name.Name]
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				return false
			}
			d.Specs = slices.DeleteFunc(d.Specs, func(spec ast.Spec) bool {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					return names[spec.Name.Name]
				case *ast.ValueSpec:
					return names[spec.Names[0].Name]
				}
				return false
			})
			return len(d.Specs) == 0
		}
		return false
	})
}
