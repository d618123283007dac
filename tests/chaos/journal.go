//go:build unix

package main

import (
	"fmt"
	"sync"
	"time"
)

// everybody is the target of a fault that hits all processes.
const everybody = "all"

// A fault lasts from its beginning to the moment at which everything was in order again,
// or could have been.
type fault struct {
	Number int
	Kind   string
	Target string // a slot's name, or everybody
	From   time.Time
	To     time.Time // zero while it lasts
}

// journal is the log that is printed, and the faults in it.
type journal struct {
	print func(string)
	began time.Time

	mu     sync.Mutex
	faults []*fault
	broken []violation
}

// A violation is a rule that did not hold.
type violation struct{ Rule, Evidence string }

func newJournal(print func(string)) *journal { return &journal{print: print, began: time.Now()} }

func (j *journal) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.print(fmt.Sprintf("%8.2fs  %s", time.Since(j.began).Seconds(), text))
}

// begin notes a fault before anything of it is done.
func (j *journal) begin(number int, kind, target, format string, args ...any) *fault {
	j.say("#%d %s %s: %s", number, kind, target, fmt.Sprintf(format, args...))
	f := &fault{Number: number, Kind: kind, Target: target, From: time.Now()}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.faults = append(j.faults, f)
	return f
}

// end notes that a fault is over.
func (j *journal) end(f *fault) {
	j.mu.Lock()
	f.To = time.Now()
	j.mu.Unlock()
	j.say("#%d %s %s: over after %.1fs", f.Number, f.Kind, f.Target, f.To.Sub(f.From).Seconds())
}

// revoked says that rights were missing at some moment, or shortly before.
func (j *journal) revoked(at time.Time) bool {
	for _, f := range j.of(everybody) {
		if f.Kind == "rights" && !f.From.After(at) && (f.To.IsZero() || f.To.Add(revokedSlack).After(at)) {
			return true
		}
	}
	return false
}

// revokedSlack is how long a worker that lacks a right may need to end.
const revokedSlack = shutdownBound + shutdownSlack

// breaks notes a violation that was seen on the way.
func (j *journal) breaks(rule, format string, args ...any) {
	v := violation{Rule: rule, Evidence: fmt.Sprintf(format, args...)}
	j.say("BROKEN: %s: %s", v.Rule, v.Evidence)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = append(j.broken, v)
}

// harmless says that a fault excuses nothing: jobs other than its own go on as if it were
// not there.
func (f fault) harmless() bool {
	switch f.Kind {
	case "poison", "refuse", "deallocate", "ddl":
		return true
	}
	return false
}

// of returns the faults that a slot felt and that may excuse something, in the order in
// which they began.
func (j *journal) of(slot string) (felt []fault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.faults {
		if !f.harmless() && (f.Target == slot || f.Target == everybody) {
			felt = append(felt, *f)
		}
	}
	return felt
}

func (j *journal) violations() []violation {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]violation{}, j.broken...)
}
