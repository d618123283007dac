//go:build unix

package taskfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// folders makes above/tasks with a task of each kind, and elsewhere/ with a target of
// links in it.
func folders(t *testing.T) (base, tasks string) {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tasks = filepath.Join(base, "above/tasks")
	for name, mode := range map[string]os.FileMode{
		"run.sh": 0o755, "greet.sql": 0o644, "sub/deep.sh": 0o755, "README": 0o644, "../../elsewhere/target": 0o755, "../../elsewhere/more/x.sql": 0o644,
	} {
		write(t, filepath.Join(tasks, name), "select 1", mode)
	}
	return base, tasks
}

func TestFilesThatOthersMayChangeAreRefused(t *testing.T) {
	ownGroup := !ownGroupAlone(uint32(os.Geteuid()), uint32(os.Getegid()))
	for name, c := range map[string]struct {
		change string // the file that is changed, below base
		mode   os.FileMode
		owner  bool              // change it to another user
		links  map[string]string // in tasks, to what
		found  bool
	}{
		"as they are":                {found: false},
		"folder, everybody":          {change: "above/tasks", mode: 0o757, found: true},
		"folder, its group":          {change: "above/tasks", mode: 0o775, found: ownGroup},
		"folder with the sticky bit": {change: "above/tasks", mode: os.ModeSticky | 0o777, found: true},
		"folder above":               {change: "above", mode: 0o777, found: true},
		"folder above, sticky":       {change: "above", mode: os.ModeSticky | 0o777, found: false},
		"folder below":               {change: "above/tasks/sub", mode: 0o777, found: true},
		"executable":                 {change: "above/tasks/run.sh", mode: 0o757, found: true},
		"executable below":           {change: "above/tasks/sub/deep.sh", mode: 0o775, found: ownGroup},
		"SQL file":                   {change: "above/tasks/greet.sql", mode: 0o646, found: true},
		"no task":                    {change: "above/tasks/README", mode: 0o666, found: false},
		"folder's owner":             {change: "above/tasks", owner: true, found: true},
		"owner above":                {change: "above", owner: true, found: true},
		"executable's owner":         {change: "above/tasks/run.sh", owner: true, found: true},
		"SQL file's owner":           {change: "above/tasks/greet.sql", owner: true, found: true},
		"link's target":              {change: "elsewhere/target", mode: 0o757, links: map[string]string{"link": "../../elsewhere/target"}, found: true},
		"folder of the target":       {change: "elsewhere", mode: 0o777, links: map[string]string{"link": "../../elsewhere/target"}, found: true},
		"linked folder":              {change: "elsewhere/more", mode: 0o777, links: map[string]string{"link": "../../elsewhere/more"}, found: true},
		"file in a linked folder":    {change: "elsewhere/more/x.sql", mode: 0o666, links: map[string]string{"link": "../../elsewhere/more"}, found: true},
		"link in the way of a link":  {change: "elsewhere", mode: 0o777, links: map[string]string{"link": "way/../target", "way": "../../elsewhere/more"}, found: true},
		"link's owner":               {change: "above/tasks/link", owner: true, links: map[string]string{"link": "../../elsewhere/target"}, found: true},
		"links without an end":       {links: map[string]string{"link": "other", "other": "link"}, found: false},
	} {
		t.Run(name, func(t *testing.T) {
			base, tasks := folders(t)
			for link, target := range c.links {
				if err := os.Symlink(target, filepath.Join(tasks, link)); err != nil {
					t.Fatal(err)
				}
			}
			changed := filepath.Join(base, c.change)
			switch {
			case c.owner:
				if os.Geteuid() != 0 {
					t.Skip("only root gives files away")
				}
				if err := os.Lchown(changed, 65534, 65534); err != nil {
					t.Fatal(err)
				}
			case c.change != "":
				if err := os.Chmod(changed, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			result, err := Load(tasks, Options{})
			var writable *WritableError
			if errors.As(err, &writable) != c.found || !c.found && err != nil {
				t.Fatalf("found %v (%v), want %v", result, err, c.found)
			}
			if c.found {
				if len(writable.Found) != 1 || !strings.Contains(err.Error(), changed+" ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is %q, want one line about %s", err, changed)
				}
				if len(result.Tasks) != 0 {
					t.Errorf("loaded %v", result.Tasks)
				}
			}
			if result, err := Load(tasks, Options{AllowWritable: true}); err != nil || len(result.Tasks) < 3 {
				t.Errorf("allowed: %v (%v)", result, err)
			}
		})
	}
}

func TestLinksOutOfTheFolderAreNamed(t *testing.T) {
	base, tasks := folders(t)
	for link, target := range map[string]string{
		"out": "../../elsewhere/target", "folder": filepath.Join(base, "elsewhere/more"), "in.sh": "run.sh", "in": "sub", "gone": "nowhere",
		"back": "../tasks/sub",
	} {
		if err := os.Symlink(target, filepath.Join(tasks, link)); err != nil {
			t.Fatal(err)
		}
	}
	alias := filepath.Join(base, "alias") // the folder's own link leads to it
	if err := os.Symlink("above/tasks", alias); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{tasks, alias} {
		result, err := Load(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := []Link{
			{filepath.Join(dir, "folder"), filepath.Join(base, "elsewhere/more")},
			{filepath.Join(dir, "out"), filepath.Join(base, "elsewhere/target")},
		}
		if diff := cmp.Diff(want, result.Links); diff != "" {
			t.Error(diff)
		}
	}
}
