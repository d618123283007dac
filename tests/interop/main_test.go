// Package interop_test runs gworker together with the Graphile Workers that npm and
// crates.io publish, on one schema, and compares what they leave in the database.
//
// Each test gets a fresh database. Workers of every runtime are processes that take orders
// and report progress in the same lines of JSON (see process_test.go) and that record every
// run in the same table (record.sql), so a test is written once and runs with either side in
// either place. The one thing not to break: a test waits for what happened, never for time
// to pass.
package interop_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

func TestMain(m *testing.M) {
	if os.Getenv(gworkerEnv) != "" {
		os.Exit(gworkerProcess())
	}
	testdb.HeavyMain(m)
}

// A side is a runtime that takes part in a test; the zero value is gworker.
type side struct {
	version node.Version
	crate   rust.Version
}

var gworkerSide = side{}

func nodeSide(v node.Version) side { return side{version: v} }

func rustSide(v rust.Version) side { return side{crate: v} }

func (s side) isNode() bool { return s.version != node.Version{} }

func (s side) isRust() bool { return s.crate != rust.Version{} }

func (s side) String() string {
	switch {
	case s.isNode():
		return s.version.String()
	case s.isRust():
		return s.crate.String()
	}
	return "gworker"
}

// storedError is how the side writes an error of a handler into last_error. The
// crate stores its Debug form.
func (s side) storedError(message string) string {
	if s.isRust() {
		return fmt.Sprintf("TaskError(%q)", message)
	}
	return message
}

// require skips the test where the side's runtime is missing.
func (s side) require(t *testing.T) {
	t.Helper()
	switch {
	case s.isNode():
		node.Require(t)
	case s.isRust():
		rust.Require(t, s.crate)
	}
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

// forEachSide runs a test once for gworker, each Node version and each release of
// the crate.
func forEachSide(t *testing.T, test func(t *testing.T, s side)) {
	sides := []side{gworkerSide}
	for _, v := range node.Versions {
		sides = append(sides, nodeSide(v))
	}
	for _, v := range rust.Versions {
		sides = append(sides, rustSide(v))
	}
	for _, s := range sides {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			s.require(t)
			test(t, s)
		})
	}
}

// forEachRust runs a test once for each release of the crate, side by side.
func forEachRust(t *testing.T, test func(t *testing.T, v rust.Version)) {
	for _, v := range rust.Versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			rust.Require(t, v)
			test(t, v)
		})
	}
}

// forEachRuntime runs a test once for gworker, the newest Node version and the
// newest release of the crate.
func forEachRuntime(t *testing.T, test func(t *testing.T, s side)) {
	for _, s := range []side{gworkerSide, nodeSide(node.V18), rustSide(rust.V14)} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			s.require(t)
			test(t, s)
		})
	}
}
