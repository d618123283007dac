//go:build unix

package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gworker/gworker/tests/interop/node"
)

//go:embed worker.mjs
var nodeScript []byte

// nodeInstallation is a Node.js with a Graphile Worker that runs together with ours.
type nodeInstallation struct {
	pack string
	make func() *exec.Cmd
}

func (n *nodeInstallation) command() *exec.Cmd { return n.make() }

// findNode installs the Node worker, or says why it cannot be.
func findNode(base string) (found *nodeInstallation, err error) {
	t := &standIn{dir: filepath.Join(base, "node")}
	defer func() {
		if stopped, ok := recover().(standInStopped); ok {
			found, err = nil, stopped.err
		}
	}()
	installed := node.Require(t)
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, err
	}
	pattern := installed.Command(context.Background(), t, "worker.mjs")
	script := filepath.Join(pattern.Dir, "chaos.mjs")
	if err := os.WriteFile(script, nodeScript, 0o644); err != nil {
		return nil, err
	}
	return &nodeInstallation{pack: node.V18.Package, make: func() *exec.Cmd {
		cmd := exec.Command(pattern.Path, script)
		cmd.Dir, cmd.Env = pattern.Dir, pattern.Env
		return cmd
	}}, nil
}

// standIn is what package node needs of a test: this program has none.
type standIn struct {
	testing.TB // nil: nothing else is called
	dir        string
}

type standInStopped struct{ err error }

func (s *standIn) Helper()         {}
func (s *standIn) TempDir() string { return s.dir }
func (s *standIn) Skipf(format string, args ...any) {
	panic(standInStopped{fmt.Errorf(format, args...)})
}
func (s *standIn) Fatalf(format string, args ...any) {
	panic(standInStopped{fmt.Errorf(format, args...)})
}
