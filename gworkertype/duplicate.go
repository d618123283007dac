package gworkertype

import "time"

// Duplicate says of an add that it has added nothing, since a job was added in the same way
// before and is unique for a time. It stands on the row of that job.
type Duplicate struct {
	// State is what has become of that job.
	State DuplicateState `json:"state"`
	// AddedAt is when it was added, by the database's clock.
	AddedAt time.Time `json:"added_at"`
	// ExpiresAt is until when nothing else is added.
	ExpiresAt time.Time `json:"expires_at"`
}

// DuplicateState is what has become of a job that was added before.
type DuplicateState string

// The states. A job that another process holds without a lock counts as waiting.
const (
	// DuplicateWaiting: it runs later, again if it has failed.
	DuplicateWaiting DuplicateState = "waiting"
	// DuplicateRunning: a worker has locked it.
	DuplicateRunning DuplicateState = "running"
	// DuplicateFailed: it has used up its attempts, and no worker will run it.
	DuplicateFailed DuplicateState = "failed"
	// DuplicateGone: it has completed, or was removed.
	DuplicateGone DuplicateState = "gone"
)
