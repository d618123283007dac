package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Whoever imports a public package can read all of it with go doc: each exported
// identifier, field and method has a comment of its own, and no type that it leads to is
// declared where only this module can look.
func TestPublicPackagesCanBeRead(t *testing.T) {
	t.Parallel()
	packages := listed(t, "./...")
	public := 0
	for _, p := range packages {
		if !p.isPublic() {
			continue
		}
		public++
		for _, complaint := range p.read(t, packages) {
			t.Error(complaint)
		}
	}
	if public < 3 {
		t.Errorf("found %d public packages", public)
	}
}

// What cannot be read is found.
func TestPackagesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	packages := listed(t, "./...")
	for text, want := range map[string]string{
		"type T struct{}":                                                                     "T has no comment of its own",
		"// T is.\ntype T struct{ F int }":                                                    "T.F has no comment of its own",
		"// T is.\ntype T struct {\n\t// F is.\n\tF, G int\n}":                                "T.G has no comment of its own",
		"// T is.\ntype T struct {\n\t// F is.\n\tF struct{ G int }\n}":                       "T.F.G has no comment of its own",
		"// T is.\ntype T struct{ hidden }\ntype hidden struct{ F int }":                      "hidden.F has no comment of its own",
		"// T is.\ntype T int\nfunc (T) M() {}":                                               "T.M has no comment of its own",
		"// T is.\ntype T struct{ hidden }\ntype hidden int\nfunc (*hidden) M() {}":           "hidden.M has no comment of its own",
		"// T is.\ntype T interface{ M() }":                                                   "T.M has no comment of its own",
		"func F() {}":                                                                         "F has no comment of its own",
		"// Those are.\nconst (\n\tA = 1\n)":                                                  "A has no comment of its own",
		"// Those are.\nvar (\n\tA = 1\n)":                                                    "A has no comment of its own",
		"// A and B are.\nvar A, B = 1, 2":                                                    "B has no comment of its own",
		"// T is.\ntype T = time.Time":                                                        "T does not say that it is [time.Time]",
		"// T is.\ntype T = job.Row":                                                          "T leads to internal/job.Row",
		"// T is.\ntype T struct {\n\t// F is.\n\tF []*job.Row\n}":                            "T leads to internal/job.Row",
		"// T is.\ntype T job.Row":                                                            "T leads to internal/job.Row",
		"// T is.\ntype T time.Timer":                                                         "T has the fields of time.Timer and does not show them",
		"// T is.\ntype T struct{ hidden }\ntype hidden struct {\n\t// F is.\n\tF job.Row\n}": "T leads to internal/job.Row",
		"// T is.\ntype T struct{ job.Row }":                                                  "T leads to internal/job.Row",
		"// F is.\nfunc F(map[string]chan job.Row) {}":                                        "F leads to internal/job.Row",
		"// F is.\nfunc F() func() job.Row { return nil }":                                    "F leads to internal/job.Row",
		"// F is.\nfunc F[T interface{ job.Row }](T) {}":                                      "F leads to internal/job.Row",
		"// T is.\ntype T int\n// M is.\nfunc (T) M(job.Row) {}":                              "T leads to internal/job.Row",
		"// T is.\ntype T interface {\n\t// M is.\n\tM(job.Row)\n}":                           "T leads to internal/job.Row",
		"// V is.\nvar V = job.Row{}":                                                         "V leads to internal/job.Row",
		"// C is.\nconst C = job.StateReady":                                                  "C leads to internal/job.State",
		"// F is.\nfunc F() hidden { return 0 }\ntype hidden int":                             "F leads to hidden",
	} {
		path := filepath.Join(t.TempDir(), "p.go")
		source := "package p\n\nimport (\n\t\"time\"\n\n\t\"" + module + "/internal/job\"\n)\n\nvar _ job.Row\nvar _ time.Time\n\n" + text
		if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		p := listedPackage{ImportPath: module + "/p", Dir: filepath.Dir(path), GoFiles: []string{"p.go"}}
		if got := p.read(t, packages); !slices.ContainsFunc(got, func(c string) bool { return strings.HasSuffix(c, want) }) {
			t.Errorf("%q gives %q, not %q", text, got, want)
		}
	}
}

// A listedPackage is one of go list.
type listedPackage struct {
	ImportPath, Name, Dir, Export string
	GoFiles                       []string
}

// listed are packages and what they import, by their paths.
func listed(t *testing.T, patterns ...string) map[string]listedPackage {
	t.Helper()
	list := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Name,Dir,Export,GoFiles"}, patterns...)...)
	list.Dir = ".."
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	all := map[string]listedPackage{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// importerOf finds the packages as they are built.
func importerOf(fset *token.FileSet, packages map[string]listedPackage) types.Importer {
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if packages[path].Export == "" {
			return nil, fmt.Errorf("no package %s", path)
		}
		return os.Open(packages[path].Export)
	})
}

// isPublic reports whether other modules can import the package and have a reason to.
func (p listedPackage) isPublic() bool {
	in := strings.Split(p.ImportPath, "/")
	return (p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")) && p.Name != "main" && len(p.GoFiles) > 0 &&
		!slices.Contains(in, "internal") && !slices.Contains(in, "tests")
}

// read says what cannot be read in the package.
func (p listedPackage) read(t *testing.T, packages map[string]listedPackage) []string {
	t.Helper()
	r := &reader{fset: token.NewFileSet(), seen: map[types.Type]bool{}, docs: map[string]string{}, types: map[string]ast.Expr{}, methods: map[string][]*ast.FuncDecl{}}
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(r.fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	config := types.Config{Importer: importerOf(r.fset, packages), GoVersion: "go1.26"}
	var err error
	r.info.Types = map[ast.Expr]types.TypeAndValue{}
	if r.pkg, err = config.Check(p.ImportPath, r.fset, files, &r.info); err != nil {
		t.Fatal(err)
	}
	r.comments(files)
	for _, name := range r.pkg.Scope().Names() {
		if object := r.pkg.Scope().Lookup(name); object.Exported() {
			clear(r.seen)
			r.from = object
			r.follow(object)
		}
	}
	return r.complaints
}

// A reader reads one package.
type reader struct {
	fset       *token.FileSet
	pkg        *types.Package
	info       types.Info
	seen       map[types.Type]bool
	docs       map[string]string          // the comments of types
	types      map[string]ast.Expr        // as they are declared
	methods    map[string][]*ast.FuncDecl // by their receivers
	from       types.Object               // what is followed
	complaints []string
}

func (r *reader) complain(at token.Pos, format string, args ...any) {
	position := r.fset.Position(at)
	r.complaints = append(r.complaints, fmt.Sprintf("%s:%d: %s", filepath.Base(position.Filename), position.Line, fmt.Sprintf(format, args...)))
}

// comments looks for what has no comment.
func (r *reader) comments(files []*ast.File) {
	var declared []*ast.GenDecl
	for _, file := range files {
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				declared = append(declared, d)
				for _, spec := range d.Specs {
					if s, is := spec.(*ast.TypeSpec); is {
						r.types[s.Name.Name] = s.Type
						r.docs[s.Name.Name] = s.Doc.Text() + d.Doc.Text()
					}
				}
			case *ast.FuncDecl:
				if d.Recv != nil {
					r.methods[baseName(d.Recv.List[0].Type)] = append(r.methods[baseName(d.Recv.List[0].Type)], d)
				} else if d.Name.IsExported() {
					r.commented(d.Name.Name, d.Name, true, d.Doc)
				}
			}
		}
	}
	for _, d := range declared {
		alone := len(d.Specs) == 1 && !d.Lparen.IsValid()
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					r.commented(s.Name.Name, s.Name, true, s.Doc, s.Comment, when(alone, d.Doc))
					r.members(s.Name.Name)
				}
			case *ast.ValueSpec:
				for i, name := range s.Names {
					if name.IsExported() {
						r.commented(name.Name, name, i == 0, s.Doc, s.Comment, when(alone, d.Doc))
					}
				}
			}
		}
	}
}

// members looks at what a type has: of a type that is not exported, what whoever embeds
// it has from it.
func (r *reader) members(name string) {
	for _, m := range r.methods[name] {
		if m.Name.IsExported() {
			r.commented(name+"."+m.Name.Name, m.Name, true, m.Doc)
		}
	}
	delete(r.methods, name) // once is enough
	r.fields(name, r.types[name])
}

func (r *reader) fields(of string, declared ast.Expr) {
	var list *ast.FieldList
	switch d := declared.(type) {
	case *ast.StructType:
		list = d.Fields
	case *ast.InterfaceType:
		list = d.Methods
	default:
		return
	}
	for _, f := range list.List {
		if f.Names == nil { // it is embedded
			name := baseName(f.Type)
			if _, is := declared.(*ast.StructType); is && ast.IsExported(name) {
				r.commented(of+"."+name, f.Type, true, f.Doc, f.Comment)
			} else if !ast.IsExported(name) && r.types[name] != nil {
				r.members(name)
			}
		}
		for i, name := range f.Names {
			if name.IsExported() {
				r.commented(of+"."+name.Name, name, i == 0, f.Doc, f.Comment)
				r.fields(of+"."+name.Name, f.Type)
			}
		}
	}
}

// commented complains of something without a comment. Of several that have one together,
// it is the first one's.
func (r *reader) commented(name string, at ast.Node, first bool, comments ...*ast.CommentGroup) {
	for _, c := range comments {
		if strings.TrimSpace(c.Text()) == "" {
			continue
		}
		if !first {
			r.complain(at.Pos(), "%s has no comment of its own", name)
		}
		return
	}
	r.complain(at.Pos(), "%s has no comment of its own", name)
}

func when(is bool, c *ast.CommentGroup) *ast.CommentGroup {
	if is {
		return c
	}
	return nil
}

// baseName is the name of a type, without what is around it.
func baseName(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return baseName(x.X)
	case *ast.IndexExpr:
		return baseName(x.X)
	case *ast.IndexListExpr:
		return baseName(x.X)
	case *ast.SelectorExpr:
		return x.Sel.Name
	case *ast.Ident:
		return x.Name
	}
	return ""
}

// follow looks for what a reader of the object is led to and cannot look up.
func (r *reader) follow(object types.Object) {
	name, is := object.(*types.TypeName)
	if !is {
		r.visit(object.Type())
		return
	}
	if name.IsAlias() {
		r.visit(types.Unalias(name.Type()))
		if other, is := types.Unalias(name.Type()).(*types.Named); is && other.Obj().Pkg() != r.pkg && !strings.Contains(r.docs[name.Name()], "["+r.nameOf(other)+"]") {
			r.complain(name.Pos(), "%s does not say that it is [%s]", name.Name(), r.nameOf(other))
		}
		return
	}
	declared := r.info.TypeOf(r.types[name.Name()])
	if other, is := types.Unalias(declared).(*types.Named); is {
		if _, is := other.Underlying().(*types.Struct); is {
			r.complain(name.Pos(), "%s has the fields of %s and does not show them", name.Name(), r.nameOf(other))
		}
	}
	r.visit(declared)
	r.visitMethods(name.Type().(*types.Named))
}

func (r *reader) visitMethods(t *types.Named) {
	for m := range t.Methods() {
		if m.Exported() {
			r.visit(m.Type())
		}
	}
}

func (r *reader) visit(t types.Type) {
	if r.seen[t] {
		return
	}
	r.seen[t] = true
	switch t := t.(type) {
	case *types.Alias:
		r.visit(types.Unalias(t))
	case *types.Named:
		if in := t.Obj().Pkg(); in != nil && (strings.HasPrefix(in.Path(), module+"/internal/") || in == r.pkg && !t.Obj().Exported()) {
			r.complain(r.from.Pos(), "%s leads to %s", r.from.Name(), r.nameOf(t))
		}
		for arg := range t.TypeArgs().Types() {
			r.visit(arg)
		}
	case *types.Map:
		r.visit(t.Key())
		r.visit(t.Elem())
	case interface{ Elem() types.Type }: // pointers, slices, arrays, channels
		r.visit(t.Elem())
	case *types.Signature:
		for p := range t.TypeParams().TypeParams() {
			r.visit(p.Constraint())
		}
		r.visit(t.Params())
		r.visit(t.Results())
	case *types.Tuple:
		for v := range t.Variables() {
			r.visit(v.Type())
		}
	case *types.Struct:
		for f := range t.Fields() {
			r.visitField(f)
		}
	case *types.Interface:
		for m := range t.ExplicitMethods() {
			if m.Exported() {
				r.visit(m.Type())
			}
		}
		for e := range t.EmbeddedTypes() {
			r.visit(e)
		}
	case *types.Union:
		for term := range t.Terms() {
			r.visit(term.Type())
		}
	}
}

func (r *reader) visitField(f *types.Var) {
	switch t, is := types.Unalias(f.Type()).(*types.Named); {
	case f.Exported():
		r.visit(f.Type())
	case f.Embedded() && is && t.Obj().Pkg() == r.pkg: // what it has is shown with whoever embeds it
		r.visit(t.Underlying())
		r.visitMethods(t)
	case f.Embedded():
		r.visit(f.Type())
	}
}

func (r *reader) nameOf(t *types.Named) string {
	if in := t.Obj().Pkg(); in != nil && in != r.pkg {
		return strings.TrimPrefix(in.Path(), module+"/") + "." + t.Obj().Name()
	}
	return t.Obj().Name()
}
