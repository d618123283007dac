package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/gworker/gworker/tests/npm"
)

// What the Node worker asks for. Older machines run the Node.js that npm's node
// packages carry, pinned by the lock file like everything else.
const nodeMajor, nodeMinor = 22, 18

var (
	//go:embed node/package.json
	nodeManifest []byte
	//go:embed node/package-lock.json
	nodeLock []byte
	//go:embed node/worker.mjs
	nodeScript []byte
)

type nodeInstallation struct {
	program, modules, version string
}

// installNode installs the packages once, into the user's cache folder.
var installNode = sync.OnceValues(func() (nodeInstallation, error) {
	var n nodeInstallation
	packages := npm.Packages{Manifest: nodeManifest, LockFile: nodeLock}
	machine, enough := machineNode()
	cache, err := os.UserCacheDir()
	if err != nil {
		return n, fmt.Errorf("no cache folder to install into: %w", err)
	}
	n.modules = filepath.Join(cache, "gworker", "bench", packages.Name())
	if enough {
		n.program, packages.Arguments = machine, []string{"--omit=optional"}
	} else {
		n.modules += "-node"
	}
	if err := packages.Install(n.modules); err != nil {
		return n, err
	}
	if !enough {
		found, _ := filepath.Glob(filepath.Join(n.modules, "node_modules", "node-*", "bin", "node"))
		if len(found) != 1 {
			return n, fmt.Errorf("no Node.js from %d.%d on, and npm has none for this machine", nodeMajor, nodeMinor)
		}
		n.program = found[0]
	}
	out, err := exec.Command(n.program, "--version").Output()
	if err != nil {
		return n, fmt.Errorf("asking Node.js for its version: %w", err)
	}
	_, err = fmt.Sscanf(string(out), "v%s", &n.version)
	return n, err
})

func machineNode() (path string, enough bool) {
	path, err := exec.LookPath("node")
	if err != nil {
		return "", false
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", false
	}
	var major, minor int
	_, err = fmt.Sscanf(string(out), "v%d.%d.", &major, &minor)
	return path, err == nil && (major > nodeMajor || major == nodeMajor && minor >= nodeMinor)
}

// nodeCommand is the script, from a folder of this run's.
func nodeCommand(scratch string) (*exec.Cmd, error) {
	n, err := installNode()
	if err != nil {
		return nil, err
	}
	script := filepath.Join(scratch, "worker.mjs")
	if err := os.WriteFile(script, nodeScript, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(n.program, script)
	cmd.Dir = scratch
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + scratch, "TZ=UTC", "NO_LOG_SUCCESS=1", "NODE_ENV=production",
		"GWORKER_BENCH_MODULES=" + n.modules, "GWORKER_BENCH_LOG=" + os.Getenv("GWORKER_BENCH_LOG"),
	}
	return cmd, nil
}
