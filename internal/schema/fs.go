package schema

import (
	"bytes"
	"io"
	"io/fs"
)

// FS returns files, a folder of SQL written for the default schema, with every
// file rendered for n.
func (n Name) FS(files fs.FS) fs.FS {
	if n.IsDefault() {
		return files
	}
	return renderedFS{name: n, files: files}
}

type renderedFS struct {
	name  Name
	files fs.FS
}

func (r renderedFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(r.files, name) }

func (r renderedFS) Open(name string) (fs.File, error) {
	info, err := fs.Stat(r.files, name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return r.files.Open(name)
	}
	text, err := fs.ReadFile(r.files, name)
	if err != nil {
		return nil, err
	}
	rendered := []byte(r.name.Render(string(text)))
	return &renderedFile{Reader: bytes.NewReader(rendered), info: renderedInfo{FileInfo: info, size: int64(len(rendered))}}, nil
}

type renderedFile struct {
	*bytes.Reader
	info renderedInfo
}

var _ interface {
	fs.File
	io.Seeker
} = (*renderedFile)(nil)

func (f *renderedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *renderedFile) Close() error               { return nil }

// renderedInfo corrects the one thing that rendering changes.
type renderedInfo struct {
	fs.FileInfo
	size int64
}

func (i renderedInfo) Size() int64 { return i.size }
