//go:build unix

package main

import (
	"slices"
	"testing"
)

// A seed is worth printing only if it brings the same faults back.
func TestSameSeedDrawsTheSameFaults(t *testing.T) {
	o := defaults()
	draw := func(seed uint64) (all []choice) {
		o.Seed = seed
		m := newMonkey(o, 4)
		for range 100 {
			all = append(all, m.draw())
		}
		return all
	}
	first := draw(7)
	if !slices.Equal(first, draw(7)) {
		t.Error("two draws from one seed differ")
	}
	if slices.Equal(first, draw(8)) {
		t.Error("another seed draws the same")
	}
	var seen []string
	for _, d := range first[:len(commonKinds())] {
		seen = append(seen, d.kind)
	}
	slices.Sort(seen)
	if want := slices.Sorted(slices.Values(commonKinds())); !slices.Equal(seen, want) {
		t.Errorf("the first faults are %v, want each of %v once", seen, want)
	}
}
