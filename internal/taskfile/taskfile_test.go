//go:build unix

package taskfile

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// shape is a result in short: identifier to "sql TEXT" or "run PATH", and the
// skipped with "!" for suspicious ones.
func shape(dir string, r Result) (tasks map[string]string, skipped []string) {
	tasks = map[string]string{}
	for _, file := range r.Tasks {
		if file.Executable == nil {
			tasks[file.Identifier] = "sql " + file.SQL
			continue
		}
		tasks[file.Identifier] = "run " + strings.TrimPrefix(file.Executable.Path, dir+"/")
	}
	for _, s := range r.Skipped {
		mark := ""
		if s.Suspicious {
			mark = "!"
		}
		skipped = append(skipped, mark+strings.TrimPrefix(s.Path, dir+"/"))
	}
	return tasks, skipped
}

func TestLoadTellsTheKindsApart(t *testing.T) {
	dir := t.TempDir()
	for name, file := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"greet.sql":           {"select 1", 0o644},
		"LOUD.SQL":            {"select 2", 0o644},
		"runnable.sql":        {"\uFEFFselect 3", 0o755},
		"empty.sql":           {"", 0o644},
		"reports/daily.sh":    {"#!/bin/sh", 0o755},
		"reports/a/b/deep":    {"#!/bin/sh", 0o700},
		"a.tar.sh":            {"#!/bin/sh", 0o500},
		"it's a \"☃\".sql":    {"select 4", 0o600},
		"dotted.folder/x.sql": {"select 5", 0o644},
		"README.md":           {"# read me", 0o644},
		"group.json":          {"{}", 0o055},
		"short":               {"#", 0o644},
		"forgotten.py":        {"", 0o644},
		"forgotten":           {"#!/bin/sh", 0o644},
		".hidden.sql":         {"select 6", 0o644},
		".git/x.sql":          {"select 7", 0o644},
	} {
		write(t, filepath.Join(dir, name), file.text, file.mode)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.sql"), 0o755); err != nil {
		t.Fatal(err)
	}
	result, err := Load(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	tasks, skipped := shape(dir, result)
	if diff := cmp.Diff(map[string]string{
		"greet": "sql select 1", "LOUD": "sql select 2", "runnable": "sql select 3", "empty": "sql ",
		"reports/daily": "run reports/daily.sh", "reports/a/b/deep": "run reports/a/b/deep", "a.tar": "run a.tar.sh",
		"it's a \"☃\"": "sql select 4", "dotted.folder/x": "sql select 5",
	}, tasks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{
		".git", ".hidden.sql", "README.md", "!forgotten", "!forgotten.py", "group.json", "pipe.sql", "short",
	}, skipped); diff != "" {
		t.Error(diff)
	}
	for i := 1; i < len(result.Tasks); i++ {
		if result.Tasks[i-1].Identifier >= result.Tasks[i].Identifier {
			t.Errorf("%q comes before %q", result.Tasks[i-1].Identifier, result.Tasks[i].Identifier)
		}
	}
}

func TestLoadFollowsLinks(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "tasks")
	write(t, filepath.Join(dir, "a/x.sql"), "select 1", 0o644)
	write(t, filepath.Join(base, "elsewhere/y.sh"), "#!/bin/sh", 0o755)
	for name, target := range map[string]string{
		"a/up": "..", "a/self": ".", "ring": "ring", "gone.sql": "nowhere",
		"out": "../elsewhere", "b": "a", "z.sql": "a/x.sql",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(base, "link to tasks")
	if err := os.Symlink("tasks", link); err != nil {
		t.Fatal(err)
	}
	result, err := Load(link, Options{})
	if err != nil {
		t.Fatal(err)
	}
	tasks, skipped := shape(link, result)
	if diff := cmp.Diff(map[string]string{
		"a/x": "sql select 1", "b/x": "sql select 1", "z": "sql select 1", "out/y": "run out/y.sh",
	}, tasks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"!a/self", "!a/up", "!b/self", "!b/up", "!gone.sql", "!ring"}, skipped); diff != "" {
		t.Error(diff)
	}
}

func TestLoadKeepsRelativePathsForPeopleOnly(t *testing.T) {
	base := t.TempDir()
	write(t, filepath.Join(base, "tasks/a/x.sh"), "#!/bin/sh", 0o755)
	t.Chdir(base)
	result, err := Load("./tasks", Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := result.Tasks[0]
	if file.Path != "tasks/a/x.sh" || !filepath.IsAbs(file.Executable.Path) || file.Executable.Task != "a/x" {
		t.Errorf("%+v, %+v", file, file.Executable)
	}
}

func TestLoadRefuses(t *testing.T) {
	long := strings.Repeat("ä", 100)
	for name, c := range map[string]struct {
		files map[string]string // executables, but for .sql
		says  []string
		is    error
	}{
		"two for one": {
			map[string]string{"reports/daily.sql": "", "reports/daily.sh": ""},
			[]string{`task "reports/daily" is defined by two files: DIR/reports/daily.sh and DIR/reports/daily.sql. Rename or remove one.`}, nil,
		},
		"all doubles": {
			map[string]string{"a.sql": "", "a.sh": "", "a": "", "b.sql": "", "b.x": "", "c.sql": ""},
			[]string{
				`task "a" is defined by 3 files: DIR/a, DIR/a.sh and DIR/a.sql. Rename or remove all but one.`,
				`task "b" is defined by two files: DIR/b.sql and DIR/b.x. Rename or remove one.`,
			}, nil,
		},
		"too long": {
			map[string]string{long + "/" + long[:56] + ".sql": ""},
			[]string{"DIR/" + long + "/", "has 129 characters", "limit is 128"}, nil,
		},
		"not UTF-8":    {map[string]string{"x.sql": "select '\xff'"}, []string{"DIR/x.sql", "not valid UTF-8"}, nil},
		"UTF-16":       {map[string]string{"x.sql": "s\x00e\x00"}, []string{"DIR/x.sql", "NUL"}, nil},
		"all problems": {map[string]string{"x.sql": "\xff", "y.sql": "\x00"}, []string{"DIR/x.sql", "DIR/y.sql"}, nil},
		"nothing":      {nil, []string{`"DIR"`, "name.sql", "chmod +x"}, ErrNoTasks},
		"near misses": {
			map[string]string{"0.txt": "", "a.txt": "#!/bin/sh", "b.txt": ""},
			[]string{"Passed over: DIR/a.txt (not executable: chmod +x it if it is a task), DIR/0.txt (neither"}, ErrNoTasks,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				mode := os.FileMode(0o755)
				if filepath.Ext(file) == ".txt" {
					mode = 0o644
				}
				write(t, filepath.Join(dir, file), text, mode)
			}
			_, err := Load(dir, Options{})
			if err == nil {
				t.Fatal("was loaded")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			for _, text := range c.says {
				if text = strings.ReplaceAll(text, "DIR", dir); !strings.Contains(err.Error(), text) {
					t.Errorf("does not say %q:\n%v", text, err)
				}
			}
		})
	}
}

func TestLoadTakesTheLongestIdentifier(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("ä", 64)
	write(t, filepath.Join(dir, long, long[2:]+".sql"), "", 0o644)
	if _, err := Load(dir, Options{}); err != nil {
		t.Error(err)
	}
}

func TestLoadWithoutFolder(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none")
	if _, err := Load(missing, Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(dir, "x.sql")
	write(t, file, "", 0o644)
	if _, err := Load(file, Options{}); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("a file: %v", err)
	}
	if _, err := Load("", Options{}); err == nil {
		t.Error("an empty name was taken")
	}
	if _, err := LoadFS(nil); err == nil {
		t.Error("nil was taken")
	}
	if _, err := LoadFS(embed.FS{}); !errors.Is(err, ErrNoTasks) {
		t.Errorf("empty file system: %v", err)
	}
}

func TestLoadFSRunsSQLOnly(t *testing.T) {
	result, err := LoadFS(fstest.MapFS{
		"a/x.sql":  {Data: []byte("select 1")},
		"run":      {Mode: 0o755},
		"plain.sh": {},
		"notes.md": {},
		"bad\xff":  {},
		"loop":     {Data: []byte("."), Mode: fs.ModeSymlink},
	})
	if err != nil {
		t.Fatal(err)
	}
	tasks, skipped := shape("", result)
	if tasks["a/x"] != "sql select 1" {
		t.Errorf("tasks %v", tasks)
	}
	seen := map[string]bool{}
	for _, name := range skipped {
		seen[name] = true
	}
	for _, name := range []string{"!run", "!plain.sh", "notes.md", "!bad\xff"} {
		if !seen[name] {
			t.Errorf("%s is not among the skipped: %q", name, skipped)
		}
	}
}
