package schema_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gworker/gworker/internal/schema"
)

func TestParseRefuses(t *testing.T) {
	for name, says := range map[string]string{
		strings.Repeat("s", 64): "63",
		strings.Repeat("ü", 32): "64 bytes",
		"a\x00b":                "NUL",
		"a\xffb":                "UTF-8",
		"pg_jobs":               "pg_",
	} {
		if _, err := schema.Parse(name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error that says %q", name, err, says)
		}
	}
}

func TestRender(t *testing.T) {
	const text = "select graphile_worker.add_job('x') from my_graphile_worker, graphile_worker_2, " +
		"(select 1) as $gw$ graphile_worker.t $gw$"
	for name, want := range map[string]string{
		"":                text,
		"graphile_worker": text,
		"jobs": `select "jobs".add_job('x') from my_graphile_worker, graphile_worker_2, ` +
			`(select 1) as $gw$ "jobs".t $gw$`,
		`a "b" $1`: `select "a ""b"" $1".add_job('x') from my_graphile_worker, graphile_worker_2, ` +
			`(select 1) as $gw$ "a ""b"" $1".t $gw$`,
		"$gw$ $gw0$": `select "$gw$ $gw0$".add_job('x') from my_graphile_worker, graphile_worker_2, ` +
			`(select 1) as $gw1$ "$gw$ $gw0$".t $gw1$`,
	} {
		parsed, err := schema.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed.Render(text); got != want {
			t.Errorf("for %q\ngot  %s\nwant %s", name, got, want)
		}
	}
}

func TestFSRendersFiles(t *testing.T) {
	parsed, err := schema.Parse("jobs")
	if err != nil {
		t.Fatal(err)
	}
	files := parsed.FS(fstest.MapFS{"a/1.sql": {Data: []byte("select graphile_worker.f()")}})
	text, err := fs.ReadFile(files, "a/1.sql")
	if err != nil || string(text) != `select "jobs".f()` {
		t.Errorf("%s, %v", text, err)
	}
	info, err := fs.Stat(files, "a/1.sql")
	if err != nil || info.Size() != int64(len(text)) {
		t.Errorf("size %d of %d, %v", info.Size(), len(text), err)
	}
}

func FuzzRender(f *testing.F) {
	for _, name := range []string{"jobs", `"`, `""`, "$gw$", "$gw0$$gw$", "graphile_worker", "\\", "'", "--"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		parsed, err := schema.Parse(name)
		if err != nil {
			return
		}
		// What was an identifier is one identifier again, in every place.
		quoted := parsed.Quoted()
		got := parsed.Render("select graphile_worker.f($gw$graphile_worker.g$gw$)")
		head, rest, ok := strings.Cut(got, quoted+".f(")
		if !ok || head != "select " {
			t.Fatalf("%q became %q", name, got)
		}
		tag, body, ok := strings.Cut(rest, quoted+".g")
		if !ok || !strings.HasPrefix(tag, "$gw") || body != tag+")" || strings.Contains(quoted, tag) {
			t.Fatalf("%q became %q", name, got)
		}
	})
}
