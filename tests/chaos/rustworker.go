//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/gworker/gworker/tests/interop/rust"
)

// rustVersion is the release of the crate that takes part: its migrations end where
// ours do, and for those beyond them the workers' role has no rights.
var rustVersion = rust.V13

// rustInstallation is a program with Rust's Graphile Worker that runs together with ours.
type rustInstallation struct {
	program string
	home    string
}

func (r *rustInstallation) command() *exec.Cmd {
	cmd := exec.Command(r.program, "chaos")
	cmd.Dir = r.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.home, "TZ=UTC", "RUST_BACKTRACE=1"}
	return cmd
}

// findRust builds the Rust worker, unless that was done before, or says why it cannot.
func findRust(base string) (*rustInstallation, error) {
	program, err := rust.Build(rustVersion)
	if err != nil {
		return nil, fmt.Errorf("the Rust worker: %w", err)
	}
	r := &rustInstallation{program: program, home: filepath.Join(base, "rust")}
	return r, os.MkdirAll(r.home, 0o755)
}
