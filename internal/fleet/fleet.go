// Package fleet has workers share the looking for jobs. A notification wakes every worker
// that listens, and if all of them looked, a job would cost as many transactions as there
// are workers, all of which but one find nothing.
//
// Workers that look for the same jobs are alike. Each knows by its heartbeats which others
// live, and works out from a notification's text, which is random and the same for all,
// who looks at once: as many as the notification has jobs, and two at least, so that one of
// them may be busy or dead. Nothing is said between them. The others look a little later,
// one after the other, unless they have looked for another reason by then; so no job waits
// for a poll because those whose turn it was could not take it.
//
// Heartbeats and notifications come in; how long to wait comes out. The one thing not to
// break: each notification makes every worker look within latest, and a worker that knows
// nothing of the others looks at once.
package fleet

import (
	"hash/fnv"
	"sync"
	"time"
)

const (
	// atOnce is how many workers look at once, at least.
	atOnce = 2
	// step is how long one worker after the other looks that does not look at once, and
	// latest is how long the last one waits: in large fleets they come faster. A job that
	// was missed is found after a few steps, and a fleet looks at most once a step in vain.
	step   = 10 * time.Millisecond
	latest = 500 * time.Millisecond

	// A worker that finds a job in its turn which has waited for missedFor is needed:
	// those whose turn it was are dead or have no free slot. It looks at once for
	// neededFor. missedFor is far longer than a busy machine keeps a claim waiting, since
	// a fleet that all looks at once makes it busier.
	missedFor = 100 * time.Millisecond
	neededFor = 10 * time.Second
)

// Fleet is what a worker knows of those that are alike. The zero value knows of none; nil is
// the fleet of a worker that looks alone, which is told nothing. Its methods may be called
// from any goroutine.
type Fleet struct {
	// Self is this worker's id.
	Self string

	mu     sync.Mutex
	others []uint64  // hashes of the ids of the others
	until  time.Time // when that is too old to go by
	needed time.Time // until when this worker looks at once
}

// Alike says which workers are alike and live, this one among them, and how long that may
// be gone by.
func (f *Fleet) Alike(workers []string, lasts time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.others, f.until = f.others[:0], time.Now().Add(lasts)
	self := false
	for _, id := range workers {
		if id == f.Self {
			self = true
			continue
		}
		f.others = append(f.others, hash(id))
	}
	if !self {
		f.others = f.others[:0] // they do not count on this worker, so it does not count on them
	}
}

// Turn is how long after a notification of so many jobs this worker is to look for them.
func (f *Fleet) Turn(notification string, jobs int) time.Duration {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	size := len(f.others) + 1
	first := max(atOnce, jobs)
	if first >= size {
		return 0
	}
	if now := time.Now(); now.After(f.until) || now.Before(f.needed) {
		return 0
	}
	n := hash(notification)
	place, own := 0, draw(n, hash(f.Self))
	for _, other := range f.others {
		if draw(n, other) < own {
			place++
		}
	}
	if place < first {
		return 0
	}
	return time.Duration(place-first+1) * min(step, latest/time.Duration(size))
}

// Shared reports whether other workers look for the same jobs.
func (f *Fleet) Shared() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.others) > 0 && time.Now().Before(f.until)
}

// Found says that a job had waited for so long when this worker found it in its turn.
func (f *Fleet) Found(waited time.Duration) {
	if f == nil || waited < missedFor {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.needed = time.Now().Add(neededFor)
}

func hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum64()
}

// draw is a worker's lot for a notification; the lowest comes first. It mixes the bits of
// both as splitmix64 does, since the hashes of similar texts are similar.
func draw(notification, worker uint64) uint64 {
	x := notification ^ worker*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
