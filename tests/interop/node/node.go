// Package node is the other side of the interop tests: the Graphile Workers
// that npm publishes, a Node.js that they run on, and small scripts of ours
// that drive them.
//
// What comes in is a test that needs them, what goes out is a command ready to
// start. The one thing not to break: a test run changes nothing here. Packages
// are pinned by package-lock.json, installed once per machine into a cache
// folder, and found complete there or not at all.
package node

import (
	"context"
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A Version is one of the pinned Graphile Workers.
type Version struct {
	// Package is the name that it is installed under.
	Package string
	// Number is its version on npm.
	Number string
}

// The versions in package.json.
var (
	V01 = Version{Package: "gw01", Number: "0.1.0"}
	V13 = Version{Package: "gw13", Number: "0.13.0"}
	V16 = Version{Package: "gw16", Number: "0.16.6"}
	V17 = Version{Package: "gw17", Number: "0.17.3"}
	V18 = Version{Package: "gw18", Number: "0.18.0"}

	// Versions are those that work on the schema of today. The others leave
	// the schemas of their time: revision 1 and revision 10.
	Versions = []Version{V16, V17, V18}
)

func (v Version) String() string { return "node " + v.Number }

// RequireEnv names the environment variable that, set to 1, makes Require fail
// a test where it would have skipped it.
const RequireEnv = "GWORKER_REQUIRE_NODE"

//go:embed *.mjs
var scripts embed.FS

// Require returns what is installed, installing it first where that was not
// done before. A test on a machine without npm, or without a way to its
// registry, is skipped with the reason, or fails if RequireEnv is 1.
func Require(t testing.TB) *Installation {
	t.Helper()
	found, err := install()
	switch {
	case err == nil:
		return found
	case os.Getenv(RequireEnv) == "1":
		t.Fatalf("Node workers: %v", err)
	default:
		t.Skipf("Node workers: %v (%s=1 makes this a failure)", err, RequireEnv)
	}
	return nil
}

// Command is one of the scripts in this folder, ready to be started: in a
// folder of its own and with an environment that holds no settings of the
// developer's. It is killed when ctx ends.
func (i *Installation) Command(ctx context.Context, t testing.TB, script string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, scripts); err != nil {
		t.Fatalf("unpacking the Node scripts: %v", err)
	}
	cmd := exec.CommandContext(ctx, i.node, filepath.Join(dir, script))
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + dir,
		"TZ=UTC",
		"NO_LOG_SUCCESS=1",
		"GWORKER_INTEROP_MODULES=" + i.modules,
	}
	return cmd
}
