package completer

import (
	"time"

	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/wait"
)

// linger is how long outcomes wait for others of their kind, for those who want
// fewer statements than the grouping by itself makes: the first of a kind decides
// when all of the kind are written. It is used under the completer's lock.
type linger struct {
	delays map[job.Kind]time.Duration // nil: nothing waits
	due    map[job.Kind]time.Time     // of the kinds that wait
	timer  *time.Timer                // for the next of them
}

func newLinger(completion, failure time.Duration) linger {
	l := linger{timer: wait.StoppedTimer()}
	for kind, delay := range map[job.Kind]time.Duration{job.Completed: completion, job.Failed: failure} {
		if delay > 0 {
			if l.delays == nil {
				l.delays, l.due = make(map[job.Kind]time.Duration), make(map[job.Kind]time.Time)
			}
			l.delays[kind] = delay
		}
	}
	return l
}

// add notes an outcome that has begun to wait.
func (l *linger) add(e Result) {
	delay := l.delays[e.Outcome.Kind]
	if delay == 0 {
		return
	}
	if _, waits := l.due[e.Outcome.Kind]; !waits {
		l.due[e.Outcome.Kind] = time.Now().Add(delay)
	}
}

// expire makes the kinds of these outcomes due, and reports whether one was not.
func (l *linger) expire(these []Result) (late bool) {
	if l.delays == nil {
		return false
	}
	now := time.Now()
	for _, e := range these {
		kind := e.Outcome.Kind
		if l.delays[kind] > 0 && (l.due[kind].IsZero() || l.due[kind].After(now)) {
			l.due[kind], late = now, true
		}
	}
	return late
}

// split takes what is due out of what waits, and sets the timer for the rest.
func (l *linger) split(waiting []Result) (due, rest []Result) {
	if l.delays == nil {
		return waiting, nil
	}
	now := time.Now()
	for _, e := range waiting {
		if at, waits := l.due[e.Outcome.Kind]; waits && at.After(now) {
			rest = append(rest, e)
		} else {
			due = append(due, e)
		}
	}
	var next time.Time
	for kind, at := range l.due {
		switch {
		case !at.After(now):
			delete(l.due, kind)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	if !next.IsZero() {
		l.timer.Reset(next.Sub(now))
	}
	return due, rest
}
