package gworker

import (
	"slices"

	"github.com/gworker/gworker/internal/job"
)

// HeldIDs are the ids of the jobs that a worker holds without a lock on their rows.
func HeldIDs(w *Worker) []int64 {
	var ids []int64
	for _, j := range w.scheduler.Held() {
		ids = append(ids, j.ID)
	}
	slices.Sort(ids)
	return ids
}

// ObserveReleaseEarly has told be called when the worker's client wants jobs to be held no
// longer: with those that are held, and those of them that it means.
func ObserveReleaseEarly(w *Worker, told func(held, meant []int64)) {
	w.client.holder = observedHolder{w.scheduler, told}
}

type observedHolder struct {
	holder
	told func(held, meant []int64)
}

func (h observedHolder) ReleaseEarly(concerns func(*job.Claimed) bool) {
	var held, meant []int64
	for _, j := range h.Held() {
		held = append(held, j.ID)
		if concerns(j) {
			meant = append(meant, j.ID)
		}
	}
	h.told(held, meant)
	h.holder.ReleaseEarly(concerns)
}
