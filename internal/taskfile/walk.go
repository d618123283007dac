package taskfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxIdentifier is what the database stores, in characters.
	maxIdentifier = 128
	// maxDepth is how deep a folder with a valid identifier can lie. It ends
	// loops of links in file systems where folders cannot be compared.
	maxDepth = maxIdentifier / 2
)

// scriptExtensions are those of files that are probably meant to be run.
var scriptExtensions = []string{
	".sh", ".bash", ".zsh", ".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts",
	".rb", ".pl", ".php", ".lua", ".tcl", ".r", ".bat", ".cmd", ".ps1", ".exe",
}

// walker collects the task files of one file system.
type walker struct {
	fsys fs.FS
	dir  string // the folder as the user named it
	root string // its absolute path, or "" if it has none

	// For a folder that has a path.
	realRoot    string // without links
	environment Environment
	rights      *rights

	result   Result
	problems []error
}

// walk fills the result. All problems are reported at once, so that a person
// can mend them in one go.
func (w *walker) walk() error {
	info, err := fs.Stat(w.fsys, ".")
	if err != nil {
		return err
	}
	w.folder(".", []fs.FileInfo{info})
	slices.SortFunc(w.result.Tasks, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Identifier, b.Identifier), cmp.Compare(a.Path, b.Path))
	})
	w.findDoubles()
	return errors.Join(w.problems...)
}

// folder visits what a folder holds. above are the folders on the way to it and
// itself.
func (w *walker) folder(name string, above []fs.FileInfo) {
	entries, err := fs.ReadDir(w.fsys, name)
	if err != nil {
		w.unreadable(name, "reading the folder", err)
		return
	}
	for _, entry := range entries {
		w.entry(path.Join(name, entry.Name()), entry, above)
	}
}

func (w *walker) entry(name string, entry fs.DirEntry, above []fs.FileInfo) {
	if strings.HasPrefix(entry.Name(), ".") {
		w.skip(name, "hidden", false)
		return
	}
	if !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		w.skip(name, "its name is not valid UTF-8 text", true)
		return
	}
	info, err := fs.Stat(w.fsys, name) // follows links
	switch {
	case err != nil && entry.Type()&fs.ModeSymlink != 0:
		w.skip(name, "a link that leads nowhere", true)
	case err != nil:
		w.unreadable(name, "looking at", err)
	case info.IsDir():
		w.subfolder(name, info, above)
	case !info.Mode().IsRegular():
		w.skip(name, "not a regular file", false)
	default:
		w.file(name, info)
	}
}

func (w *walker) subfolder(name string, info fs.FileInfo, above []fs.FileInfo) {
	if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }) {
		w.skip(name, "a link to a folder that it lies in", true)
		return
	}
	if len(above) >= maxDepth {
		w.skip(name, fmt.Sprintf("more than %d folders deep, so no identifier fits", maxDepth), true)
		return
	}
	// Clipped, so that siblings do not write into each other's list.
	w.reached(name)
	w.folder(name, append(slices.Clip(above), info))
}

// reached notes a task file or a folder of them: who may change it, and whether a
// link has led out of the tasks folder.
func (w *walker) reached(name string) {
	if w.root == "" {
		return
	}
	file := filepath.Join(w.root, filepath.FromSlash(name))
	w.rights.look(file)
	if info, err := os.Lstat(file); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return // or the folder above it has led out, and is noted
	}
	if target, err := filepath.EvalSymlinks(file); err == nil && !inside(w.realRoot, target) {
		w.result.Links = append(w.result.Links, Link{Path: w.display(name), Target: target})
	}
}

// inside reports whether a path is a folder or lies in it.
func inside(folder, name string) bool {
	relative, err := filepath.Rel(folder, name)
	return err == nil && filepath.IsLocal(relative)
}

func (w *walker) file(name string, info fs.FileInfo) {
	sql := strings.EqualFold(path.Ext(name), ".sql")
	runnable := info.Mode()&0o100 != 0
	switch {
	case sql:
	case w.root == "" && (runnable || w.looksLikeScript(name)):
		w.skip(name, "an executable needs a path on disk: only SQL files can be used here", true)
		return
	case runnable:
	case w.looksLikeScript(name):
		w.skip(name, "not executable: chmod +x it if it is a task", true)
		return
	default:
		w.skip(name, "neither an .sql file nor executable", false)
		return
	}
	file := File{Identifier: strings.TrimSuffix(name, path.Ext(name)), Path: w.display(name)}
	if n := utf8.RuneCountInString(file.Identifier); n > maxIdentifier {
		w.problem("%s: the identifier %q has %d characters: the limit is %d. Rename the file",
			file.Path, file.Identifier, n, maxIdentifier)
		return
	}
	if sql {
		text, ok := w.readSQL(name)
		if !ok {
			return
		}
		file.SQL = text
	} else {
		file.Executable = &Executable{
			Path: filepath.Join(w.root, filepath.FromSlash(name)), Task: file.Identifier, Environment: w.environment,
		}
	}
	w.reached(name)
	w.result.Tasks = append(w.result.Tasks, file)
}

// readSQL reads a SQL file and checks that PostgreSQL can read it too.
func (w *walker) readSQL(name string) (string, bool) {
	text, err := fs.ReadFile(w.fsys, name)
	if err != nil {
		w.unreadable(name, "reading", err)
		return "", false
	}
	// Some editors begin a file with this mark, and the server takes it for a
	// syntax error.
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if bytes.IndexByte(text, 0) >= 0 {
		w.problem("%s holds a NUL character, which no statement can hold: save it as UTF-8 text", w.display(name))
		return "", false
	}
	if !utf8.Valid(text) {
		w.problem("%s is not valid UTF-8: save it as UTF-8 text", w.display(name))
		return "", false
	}
	return string(text), true
}

// looksLikeScript reports whether a file without the execute bit was probably
// meant to have it.
func (w *walker) looksLikeScript(name string) bool {
	if slices.Contains(scriptExtensions, strings.ToLower(path.Ext(name))) {
		return true
	}
	file, err := w.fsys.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // only read from
	var start [2]byte
	_, err = io.ReadFull(file, start[:])
	return err == nil && string(start[:]) == "#!"
}

// findDoubles reports identifiers that several files stand for. The tasks are
// sorted.
func (w *walker) findDoubles() {
	tasks := w.result.Tasks
	for len(tasks) > 0 {
		n := 1
		for n < len(tasks) && tasks[n].Identifier == tasks[0].Identifier {
			n++
		}
		same := tasks[:n]
		tasks = tasks[n:]
		switch {
		case n == 2:
			w.problem("task %q is defined by two files: %s and %s. Rename or remove one.",
				same[0].Identifier, same[0].Path, same[1].Path)
		case n > 2:
			paths := make([]string, n)
			for i, file := range same {
				paths[i] = file.Path
			}
			w.problem("task %q is defined by %d files: %s. Rename or remove all but one.",
				same[0].Identifier, n, strings.Join(paths[:n-1], ", ")+" and "+paths[n-1])
		}
	}
}

// unreadable notes a file that cannot be looked into. One that went away since
// its folder was listed is no problem; its error must not pass for that of a
// missing tasks folder.
func (w *walker) unreadable(name, doing string, err error) {
	if errors.Is(err, fs.ErrNotExist) && name != "." {
		w.skip(name, "went away while the folder was read", true)
		return
	}
	w.problems = append(w.problems, fmt.Errorf("%s %s: %w", doing, w.display(name), err))
}

func (w *walker) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Errorf(format, args...))
}

func (w *walker) skip(name, reason string, suspicious bool) {
	w.result.Skipped = append(w.result.Skipped, Skipped{Path: w.display(name), Reason: reason, Suspicious: suspicious})
}

// display is the path that people are told.
func (w *walker) display(name string) string {
	if w.root == "" {
		return name
	}
	return filepath.Join(w.dir, filepath.FromSlash(name))
}
