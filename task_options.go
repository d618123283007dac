package gworker

// TaskOptions are what a task wants of the worker that runs its jobs. The zero
// value is the worker's own defaults.
type TaskOptions struct {
	// Concurrency is how many jobs of the task a worker has at once at most,
	// those in its local queue included. It does not count other workers' jobs.
	// Jobs beyond it stay in the queue, for other workers too, and hold up no
	// other task. 0 means as many as the worker has slots.
	Concurrency int
}

// With returns the task with these options in place of those that it had.
func (t Task) With(options TaskOptions) Task {
	t.options = options
	return t
}
