package node

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/gworker/gworker/tests/npm"
)

// CacheEnv names the environment variable with the folder to install into, in
// place of gworker/interop in the user's cache folder.
const CacheEnv = "GWORKER_INTEROP_CACHE"

// What the newest of the workers asks for. Older machines run the binary that
// npm's node packages carry; the lock file pins it like everything else.
const nodeMajor, nodeMinor = 22, 18

const versionTimeout = 30 * time.Second

var (
	//go:embed package.json
	manifest []byte
	//go:embed package-lock.json
	lockFile []byte
)

// An Installation is a complete set of the pinned packages.
type Installation struct {
	modules string // the folder that holds node_modules
	node    string // the Node.js to run
}

// Modules is the folder in which node_modules lies.
func (i *Installation) Modules() string { return i.modules }

var install = sync.OnceValues(func() (*Installation, error) {
	node, machine := machineNode()
	packages := npm.Packages{Manifest: manifest, LockFile: lockFile}
	if machine {
		packages.Arguments = []string{"--omit=optional"}
	}
	dir, err := cacheDir(packages.Name(), machine)
	if err != nil {
		return nil, err
	}
	if err := packages.Install(dir); err != nil {
		return nil, err
	}
	if !machine {
		node, err = packagedNode(dir)
		if err != nil {
			return nil, err
		}
	}
	return &Installation{modules: dir, node: node}, nil
})

// cacheDir is a folder for exactly this lock file. Nothing is ever changed in
// it: another lock file has another folder.
func cacheDir(name string, machineNode bool) (string, error) {
	base := os.Getenv(CacheEnv)
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder to install into (set %s): %w", CacheEnv, err)
		}
		base = filepath.Join(user, "gworker", "interop")
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return "", fmt.Errorf("%s: %w", CacheEnv, err)
	}
	if !machineNode {
		name += "-node"
	}
	return filepath.Join(base, name), nil
}

// machineNode finds the machine's own Node.js and whether it is new enough.
func machineNode() (path string, enough bool) {
	path, err := exec.LookPath("node")
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", false
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "v%d.%d.", &major, &minor); err != nil {
		return "", false
	}
	return path, major > nodeMajor || major == nodeMajor && minor >= nodeMinor
}

// packagedNode finds the one node package that npm chose for this machine.
func packagedNode(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "node_modules", "node-*", "bin", "node"))
	if err != nil {
		return "", fmt.Errorf("looking for a Node.js package: %w", err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("no Node.js from %d.%d on the machine, and package.json has %d packages of one for it",
			nodeMajor, nodeMinor, len(found))
	}
	return found[0], nil
}
