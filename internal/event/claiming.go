package event

import "time"

// ClaimStarted: the worker asks for up to Asked jobs.
type ClaimStarted struct {
	WorkerID string
	Asked    int
}

// ClaimEmpty: a claim found nothing to run.
type ClaimEmpty struct {
	WorkerID string
	Asked    int
	Duration time.Duration
}

func (ClaimStarted) event() {}
func (ClaimEmpty) event()   {}
