package main

import (
	"fmt"
	"os/exec"
	"runtime/debug"
	"strings"
)

// slots is the concurrency of all sides but River, which has its own.
const slots = 24

// A peer is a side that can be measured.
type peer struct {
	name    string
	what    string
	queue   queue
	slots   int
	command func(*bench, order) (*exec.Cmd, error)
	version func() (string, error) // an error is why it cannot be measured
	raw     bool                   // runs no tasks
}

func allPeers() []*peer {
	return []*peer{
		{name: "gworker", what: "gworker, default configuration", queue: graphile{}, slots: slots, command: goCommand, version: gworkerVersion},
		{name: "gworker-locked", what: "the same without held claims", queue: graphile{}, slots: slots, command: goCommand, version: lockedVersion},
		{name: "gworker-off", what: "the default configuration without history", queue: graphile{}, slots: slots, command: goCommand, version: gworkerVersion},
		{name: "node", what: "Graphile Worker for Node, default configuration", queue: graphile{}, slots: slots, command: nodeSide, version: nodeVersion},
		{name: "node-batch", what: "the same with a local queue of 500 and batch delays of 0", queue: graphile{}, slots: slots, command: nodeSide, version: nodeVersion},
		{name: "rust", what: "Graphile Worker RS, default configuration", queue: rustGraphile{}, slots: slots, command: rustSide, version: rustVersionOf},
		{name: "rust-batch", what: "the same with a local queue of 5,000 and batch delays of 5 ms", queue: rustGraphile{}, slots: slots, command: rustSide, version: rustVersionOf},
		{name: "river", what: "River, default configuration, 100 workers", queue: rivers{}, slots: riverSlots("river"), command: goCommand, version: riverVersion},
		{name: "river-2000", what: "River, 2,000 workers, a cooldown of 2 ms", queue: rivers{}, slots: riverSlots("river-2000"), command: goCommand, version: riverVersion},
		{name: "raw-locked", what: "raw limit: gworker's claim and completion in a loop", queue: graphile{}, slots: 1, command: goCommand, version: pgxVersion, raw: true},
		{name: "raw-held", what: "raw limit: gworker's held claim and its completion in a loop", queue: graphile{}, slots: 1, command: goCommand, version: pgxVersion, raw: true},
		{name: "raw-select", what: "the same with the least that could do: select for update, delete, commit", queue: graphile{}, slots: 1, command: goCommand, version: pgxVersion, raw: true},
		{name: "sql", what: "the schema's functions, called by SQL clients", queue: graphile{}, slots: 1, command: goCommand, version: pgxVersion},
	}
}

func nodeSide(b *bench, _ order) (*exec.Cmd, error) { return nodeCommand(b.scratch) }

// gworkerVersion is the commit of the tree that was built.
func gworkerVersion() (string, error) {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown commit", nil
	}
	version := strings.TrimSpace(string(out))
	if out, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "..").Output(); err == nil && len(out) > 0 {
		version += " with changes"
	}
	return version, nil
}

func lockedVersion() (string, error) {
	version, err := gworkerVersion()
	if !variantsDiffer {
		version += " (no held claims there: the same as gworker)"
	}
	return version, err
}

func nodeVersion() (string, error) {
	n, err := installNode()
	if err != nil {
		return "", err
	}
	return "0.18.0 on Node.js " + n.version, nil
}

func riverVersion() (string, error) { return moduleVersion("github.com/riverqueue/river") }
func pgxVersion() (string, error) {
	version, err := moduleVersion("github.com/jackc/pgx/v5")
	return "pgx " + version, err
}

func moduleVersion(path string) (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", fmt.Errorf("this program does not know what it was built from")
	}
	for _, dep := range info.Deps {
		if dep.Path == path {
			return dep.Version, nil
		}
	}
	return "unknown", nil
}
