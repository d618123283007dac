// Package rust is the Rust side of the interop tests: a small program of ours on
// the graphile_worker crate as crates.io publishes it.
//
// What comes in is a test that needs it, what goes out is a command ready to
// start. The one thing not to break: a test run changes nothing here. Crates are
// pinned by the Cargo.lock files, the program is built once per machine into a
// cache folder, and its binary is found complete there or not at all.
package rust

import (
	"context"
	"os"
	"os/exec"
	"testing"
)

// A Version is one of the pinned releases of the crate.
type Version struct {
	// Number is its version on crates.io.
	Number string
	// Revision is the one that its migrations end at.
	Revision int
	// folder holds its Cargo.toml and Cargo.lock, which name the binary.
	folder, binary string
}

var (
	// V14 is the newest release.
	V14 = Version{Number: "0.14.1", Revision: 22, binary: "interop-rust"}
	// V13 is the newest release whose migrations end at 20, with every crate of
	// its family as it was then.
	V13 = Version{Number: "0.13.5", Revision: 20, folder: "revision20", binary: "interop-rust20"}

	// Versions are both, the newest first.
	Versions = []Version{V14, V13}
)

func (v Version) String() string { return "rust " + v.Number }

// RequireEnv names the environment variable that, set to 1, makes Require fail
// a test where it would have skipped it.
const RequireEnv = "GWORKER_REQUIRE_RUST"

// Require builds the program on the version, unless that was done before, and
// returns its path. A test on a machine without a cargo that is new enough, or
// without a way to its registry, is skipped with the reason, or fails if
// RequireEnv is 1.
func Require(t testing.TB, v Version) (program string) {
	t.Helper()
	program, err := Build(v)
	switch {
	case err == nil:
		return program
	case os.Getenv(RequireEnv) == "1":
		t.Fatalf("Rust workers: %v", err)
	default:
		t.Skipf("Rust workers: %v (%s=1 makes this a failure)", err, RequireEnv)
	}
	return ""
}

// Command is the program, ready to be started for one of its purposes (worker,
// client, admin, migrate or chaos) in an environment that holds no settings of the
// developer's. It is killed when ctx ends.
func Command(ctx context.Context, t testing.TB, v Version, purpose string) *exec.Cmd {
	t.Helper()
	program := Require(t, v)
	cmd := exec.CommandContext(ctx, program, purpose)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TZ=UTC", "RUST_BACKTRACE=1"}
	return cmd
}
