package testdb

import "testing"

// A Sample runs one member of a table with -short, and all of them without. The zero
// value is ready; each table has its own.
type Sample struct{ taken bool }

// Take skips all subtests but the first of those that call it, if -short is given. It is
// called before Parallel.
func (s *Sample) Take(t testing.TB) {
	t.Helper()
	if s.taken && testing.Short() {
		t.Skip("another one of the table runs")
	}
	s.taken = true
}
