package main

import (
	"encoding/json"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/history"
)

// eventJSON is an event as commands print it: durations are in seconds, as in all of them.
type eventJSON struct {
	At            time.Time       `json:"at"`
	Kind          history.Kind    `json:"kind"`
	JobID         int64           `json:"job_id,omitempty"`
	JobIDs        []int64         `json:"job_ids,omitempty"`
	Task          string          `json:"task_identifier,omitempty"`
	Queue         string          `json:"queue_name,omitempty"`
	Key           string          `json:"key,omitempty"`
	Attempt       int             `json:"attempt,omitempty"`
	MaxAttempts   int             `json:"max_attempts,omitempty"`
	WorkerID      string          `json:"worker_id,omitempty"`
	WaitedSeconds float64         `json:"waited_seconds,omitempty"`
	RanSeconds    float64         `json:"ran_seconds,omitempty"`
	Error         string          `json:"error,omitempty"`
	NextRunAt     time.Time       `json:"next_run_at,omitzero"`
	Details       json.RawMessage `json:"details,omitempty"`
}

func jsonEvents(events []history.Event) []eventJSON {
	printed := make([]eventJSON, len(events))
	for i, e := range events {
		printed[i] = eventJSON{
			At: e.At, Kind: e.Kind, JobID: e.JobID, JobIDs: e.JobIDs, Task: e.Task, Queue: e.Queue, Key: e.Key,
			Attempt: e.Attempt, MaxAttempts: e.MaxAttempts, WorkerID: e.WorkerID,
			WaitedSeconds: e.Waited.Seconds(), RanSeconds: e.Ran.Seconds(), Error: e.Error, NextRunAt: e.NextRunAt, Details: e.Details,
		}
	}
	return printed
}

type eventsJSON struct {
	Events     []eventJSON `json:"events"`
	NextCursor string      `json:"next_cursor,omitempty"`
}

type jobHistoryJSON struct {
	Job    *jobJSON    `json:"job"` // null if it is gone
	Events []eventJSON `json:"events"`
}

func jsonJobHistory(found gworker.JobHistory) jobHistoryJSON {
	printed := jobHistoryJSON{Events: jsonEvents(found.Events)}
	if found.Job != nil {
		job := jsonJobInfo(found.Job)
		job.Payload = nil // "show" prints it
		printed.Job = &job
	}
	return printed
}

// ranJSON is what has run of one task in some time.
type ranJSON struct {
	Task              string        `json:"task_identifier"`
	Since             time.Time     `json:"since"`
	Completed         int64         `json:"completed"`
	Failed            int64         `json:"failed"`
	PermanentlyFailed int64         `json:"permanently_failed"`
	Returned          int64         `json:"returned"`
	Snoozed           int64         `json:"snoozed"`
	WaitedSeconds     durationsJSON `json:"waited_seconds"`
	RanSeconds        durationsJSON `json:"ran_seconds"`
}

type durationsJSON struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
}

func jsonDurations(d history.Durations) durationsJSON {
	return durationsJSON{Mean: d.Mean.Seconds(), P50: d.P50.Seconds(), P90: d.P90.Seconds(), P99: d.P99.Seconds()}
}

func jsonRan(stats []history.TaskStats) []ranJSON {
	printed := make([]ranJSON, len(stats))
	for i, s := range stats {
		printed[i] = ranJSON{
			Task: s.Task, Since: s.Since, Completed: s.Completed, Failed: s.Failed, PermanentlyFailed: s.PermanentlyFailed,
			Returned: s.Returned, Snoozed: s.Snoozed, WaitedSeconds: jsonDurations(s.Waited), RanSeconds: jsonDurations(s.Ran),
		}
	}
	return printed
}
