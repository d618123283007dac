package gworkertest

import (
	"slices"
	"sync"

	"github.com/gworker/gworker/event"
)

// runs keeps the ends of a worker's runs by job, and which of them the test has
// been told of.
type runs struct {
	mu      sync.Mutex
	ends    map[int64][]Result
	taken   map[int64]int
	changed chan struct{} // closed, and replaced, when an end is added

	once    sync.Once
	started chan struct{} // closed when the worker begins to take jobs
}

func (r *runs) observe(e event.Event) {
	if _, ok := e.(event.WorkerStarted); ok {
		r.once.Do(func() { close(r.started) })
	}
	end, ok := resultOf(e)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends[end.Job.ID] = append(r.ends[end.Job.ID], end)
	close(r.changed)
	r.changed = make(chan struct{})
}

// next takes the job's first end that ok accepts, of those that were not taken
// yet, passing over the others; without one, changed closes when there is news.
func (r *runs) next(jobID int64, ok func(Result) bool) (end Result, found bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, end := range r.ends[jobID] {
		if i >= r.taken[jobID] && ok(end) {
			r.taken[jobID] = i + 1
			return end, true, nil
		}
	}
	return end, false, r.changed
}

func (r *runs) all(jobID int64) []Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ends[jobID])
}
