//go:build unix

package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gworker/gworker/tests/interop/rust"
)

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		os.Exit(workerProcess())
	}
	goleak.VerifyTestMain(m)
}

// seedEnv names the environment variable that asks for the test, with the seed.
const seedEnv = "GWORKER_CHAOS"

// shortKinds are those of the short form: what is quick, and one of each sort.
var shortKinds = []string{
	"kill", "freeze", "cut", "blackhole", "terminate", "restart", "crash", "timeouts", "failover",
	"poison", "refuse", "deallocate", "ddl", "rights", "limits", "idle", "hush",
}

// TestChaos is the short form: most kinds of faults about once. It wants the
// machine for itself, as it counts a worker that cannot be heard of for seconds as
// silent, so it runs only when it is asked for.
func TestChaos(t *testing.T) {
	text := os.Getenv(seedEnv)
	if text == "" {
		t.Skipf("takes a minute, and the machine for itself: %s=SEED runs it", seedEnv)
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedEnv, err)
	}
	o := defaults()
	o.Duration, o.Seed, o.Faults = 50*time.Second, seed, shortKinds
	switch _, err := rust.Build(rustVersion); {
	case err == nil:
		o.Rust = 1
	case os.Getenv(rust.RequireEnv) == "1":
		t.Fatalf("no Rust worker can take part: %v", err)
	default:
		t.Logf("no Rust worker takes part: %v (%s=1 makes this a failure)", err, rust.RequireEnv)
	}
	v, err := run(t.Context(), o, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	if v.failed() {
		t.Error("see the verdict above")
	}
}
