package rust

import (
	"embed"
	"sync"

	"github.com/gworker/gworker/tests/cargo"
)

// What the crates ask for.
const cargoMajor, cargoMinor = 1, 94

//go:embed Cargo.toml Cargo.lock src/*.rs revision20/Cargo.toml revision20/Cargo.lock
var sources embed.FS

// program is ours on the version, in the profile that compiles quicker.
func (v Version) program() cargo.Program {
	return cargo.Program{
		Name: v.binary, Sources: sources, Folder: v.folder, Profile: "dev", Major: cargoMajor, Minor: cargoMinor,
	}
}

var builds sync.Map // of a Version, its build

// Build returns the path of the program on the version, and builds it first where
// that was not done before. It is safe for concurrent use, also by several processes.
func Build(v Version) (program string, err error) {
	once, _ := builds.LoadOrStore(v, sync.OnceValues(v.program().Build))
	return once.(func() (string, error))()
}

// Available tells why the programs cannot be built here, or nil: whether there is a
// cargo that is new enough.
func Available() error {
	_, err := V14.program().Find()
	return err
}
