// Package interop_test runs gworker beside the Graphile Workers that npm
// publishes, on one schema, and compares what both leave in the database.
//
// Each test gets a fresh database. Workers of every runtime are processes that
// take their orders and tell their progress in the same lines of JSON (see
// process_test.go) and that record every run in the same table (record.sql), so
// a test is written once and runs with either side in either place. The one
// thing not to break: a test waits for what happened, never for time to pass.
package interop_test

import (
	"os"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/tests/interop/node"
)

func TestMain(m *testing.M) {
	if os.Getenv(gworkerEnv) != "" {
		os.Exit(gworkerProcess())
	}
	testdb.HeavyMain(m)
}

// A side is a runtime that takes part in a test; the zero value is gworker.
type side struct{ version node.Version }

var gworkerSide = side{}

func nodeSide(v node.Version) side { return side{version: v} }

func (s side) isNode() bool { return s != gworkerSide }

func (s side) String() string {
	if s.isNode() {
		return s.version.String()
	}
	return "gworker"
}

// forEachNode runs a test once for each Node version, side by side.
func forEachNode(t *testing.T, test func(t *testing.T, v node.Version)) {
	node.Require(t)
	for _, v := range node.Versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

// forEachSide runs a test once for gworker and each Node version.
func forEachSide(t *testing.T, test func(t *testing.T, s side)) {
	t.Run(gworkerSide.String(), func(t *testing.T) {
		t.Parallel()
		test(t, gworkerSide)
	})
	forEachNode(t, func(t *testing.T, v node.Version) { test(t, nodeSide(v)) })
}
