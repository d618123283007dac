package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// CacheEnv names the environment variable with the folder to install into, in
// place of gworker/interop in the user's cache folder.
const CacheEnv = "GWORKER_INTEROP_CACHE"

// What the newest of the workers asks for. Older machines run the binary that
// npm's node packages carry; the lock file pins it like everything else.
const nodeMajor, nodeMinor = 22, 18

const (
	installTimeout = 5 * time.Minute
	versionTimeout = 30 * time.Second
)

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
	npm, err := exec.LookPath("npm")
	if err != nil {
		return nil, fmt.Errorf("npm is not installed: %w", err)
	}
	node, machine := machineNode()
	dir, err := cacheDir(machine)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		err = installInto(dir, npm, machine)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("looking for installed packages: %w", err)
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
func cacheDir(machineNode bool) (string, error) {
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
	sum := sha256.Sum256(lockFile)
	name := hex.EncodeToString(sum[:8])
	if !machineNode {
		name += "-node"
	}
	return filepath.Join(base, name), nil
}

// installInto fills a folder beside dir and renames it when it is complete.
// Several processes may do so at once: the first rename wins, and the others
// use what it made.
func installInto(dir, npm string, machineNode bool) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the cache folder: %w", err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		return fmt.Errorf("making a folder to install into: %w", err)
	}
	defer os.RemoveAll(temp)
	for name, content := range map[string][]byte{"package.json": manifest, "package-lock.json": lockFile} {
		if err := os.WriteFile(filepath.Join(temp, name), content, 0o644); err != nil {
			return fmt.Errorf("installing packages: %w", err)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	args := []string{
		"ci", "--ignore-scripts", "--engine-strict=false", "--no-audit", "--no-fund", "--loglevel=error",
		"--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000", // not a minute, to find out being offline
	}
	if machineNode {
		args = append(args, "--omit=optional")
	}
	cmd := exec.CommandContext(ctx, npm, args...)
	cmd.Dir = temp
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, strings.TrimSpace(output.String()))
	}

	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("installing packages: %w", err)
	}
	err = os.Rename(temp, dir)
	if _, statErr := os.Stat(dir); err != nil && statErr != nil {
		return fmt.Errorf("putting installed packages in place: %w", err)
	}
	return nil
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
