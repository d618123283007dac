// Package taskfile finds the task files of a folder and runs those that are
// executables. A folder or an fs.FS comes in; the tasks go out, sorted by identifier,
// with the files that were skipped and the reasons. SQL files go out as text for package
// sqltask; an Executable runs one process for one job and returns how it ended.
//
// The one thing not to break: when Run returns, nothing of it is left: the process is
// reaped, no goroutine reads or writes, and output is no longer called. Once the context
// has ended, a process can delay that only for a bounded time.
package taskfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoTasks is the error for a folder without any task file.
var ErrNoTasks = errors.New("no task files")

// File is a task file.
type File struct {
	// Identifier is the path below the tasks folder without the extension, with
	// slashes on every system.
	Identifier string
	// Path is the path as a person would name it: the tasks folder as it was
	// given, and the path below it.
	Path string
	// SQL is the text of a SQL file.
	SQL string
	// Executable runs the file; nil for a SQL file.
	Executable *Executable
}

// Skipped is a file or folder that was passed over.
type Skipped struct {
	Path   string
	Reason string
	// Suspicious means that it was probably meant to be a task.
	Suspicious bool
}

// Link is a symbolic link to a task file or a folder of them that lies outside of the
// tasks folder.
type Link struct {
	Path   string
	Target string
}

// Result is what a folder holds.
type Result struct {
	Tasks   []File
	Skipped []Skipped
	Links   []Link
}

// Options are how a folder is loaded and its executables are run.
type Options struct {
	Environment Environment
	// AllowWritable accepts files that other users may change.
	AllowWritable bool
}

// WritableError is the error for files that users other than this one and root may
// change.
type WritableError struct {
	Dir   string
	Found []string // the first names the worst place, the folder or one on the way to it
}

func (e *WritableError) Error() string {
	found, more := e.Found, ""
	if n := len(found) - maxListed; n > 0 {
		found, more = found[:maxListed], fmt.Sprintf(", and %d more", n)
	}
	return fmt.Sprintf("other users can change the task files of %q, and what they write would run here: %s%s",
		e.Dir, strings.Join(found, ", "), more)
}

// Load finds the task files below a folder. The error for a folder that does
// not exist wraps fs.ErrNotExist, the one for a folder without tasks wraps
// ErrNoTasks, and the one for files that other users may change is a
// *WritableError.
func Load(dir string, options Options) (Result, error) {
	if dir == "" {
		return Result{}, errors.New("the name of the tasks folder is empty")
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Result{}, fmt.Errorf("the tasks folder %q does not exist: %w", dir, err)
	case err != nil:
		return Result{}, fmt.Errorf("opening the tasks folder: %w", err)
	case !info.IsDir():
		return Result{}, fmt.Errorf("%q is not a folder: name the folder that holds the task files", dir)
	}
	// Executables are started by absolute path: the program may change its
	// working directory later.
	root, err := filepath.Abs(dir)
	if err != nil {
		return Result{}, fmt.Errorf("finding the tasks folder %q: %w", dir, err)
	}
	w := &walker{fsys: os.DirFS(root), dir: dir, root: root, environment: options.Environment, rights: newRights()}
	if w.realRoot, err = filepath.EvalSymlinks(root); err != nil {
		return Result{}, fmt.Errorf("opening the tasks folder: %w", err)
	}
	w.rights.look(root)
	result, err := load(w, fmt.Sprintf("%q", dir))
	if len(w.rights.found) > 0 && !options.AllowWritable {
		return Result{}, &WritableError{Dir: dir, Found: w.rights.found}
	}
	return result, err
}

// LoadFS finds the SQL files of a file system. Executables have no path there
// by which the system could start them; they are skipped.
func LoadFS(fsys fs.FS) (Result, error) {
	if fsys == nil {
		return Result{}, errors.New("the file system of the task files is nil")
	}
	return load(&walker{fsys: fsys}, "the file system")
}

func load(w *walker, where string) (Result, error) {
	if err := w.walk(); err != nil {
		return Result{}, fmt.Errorf("loading task files from %s: %w", where, err)
	}
	if len(w.result.Tasks) == 0 {
		return w.result, fmt.Errorf("%w in %s: a task file is name.sql, or a file with the execute bit (chmod +x)%s",
			ErrNoTasks, where, listSkipped(w.result.Skipped))
	}
	return w.result, nil
}

// maxListed bounds the files that an error names.
const maxListed = 10

// listSkipped names what was passed over, first of all what looks like a task.
func listSkipped(skipped []Skipped) string {
	var suspicious, others []string
	for _, s := range skipped {
		line := s.Path + " (" + s.Reason + ")"
		if s.Suspicious {
			suspicious = append(suspicious, line)
		} else {
			others = append(others, line)
		}
	}
	lines := append(suspicious, others...)
	if len(lines) == 0 {
		return ""
	}
	more := ""
	if n := len(lines) - maxListed; n > 0 {
		lines, more = lines[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	return ". Passed over: " + strings.Join(lines, ", ") + more
}
