package gworker

import "github.com/gworker/gworker/event"

// Event is something that happened in a worker: any of the event types of this
// package. Observers get every event and switch on its type:
//
//	func(e gworker.Event) {
//		switch e := e.(type) {
//		case gworker.JobFailed:
//			failures.Add(e.Job.Task, 1)
//		}
//	}
type Event = event.Event

// The events of a worker's life, each documented in the table of docs/events.md.
type (
	WorkerStarted       = event.WorkerStarted
	WorkerStopping      = event.WorkerStopping
	WorkerStopped       = event.WorkerStopped
	DatabaseUnreachable = event.DatabaseUnreachable
	ListenerConnected   = event.ListenerConnected
	ListenerLost        = event.ListenerLost
	RevisionApplied     = event.RevisionApplied
	SchemaWarning       = event.SchemaWarning
	BreakingMigration   = event.BreakingMigration
	ObserverPanicked    = event.ObserverPanicked
)

// ListenerPooled is emitted once, where Config.NoPreparedStatements makes a
// pooler likely and the listener is found behind one.
type ListenerPooled = event.ListenerPooled

// The events of recovery.
type (
	HeartbeatFailed    = event.HeartbeatFailed
	WorkerDeclaredDead = event.WorkerDeclaredDead
	LocksLost          = event.LocksLost
	WorkerRecovered    = event.WorkerRecovered
	SweepFailed        = event.SweepFailed
	OldLocksReset      = event.OldLocksReset
)

// The events of cron.
type (
	CronStarting   = event.CronStarting
	CronStarted    = event.CronStarted
	CronBackfilled = event.CronBackfilled
	CronTick       = event.CronTick
	CronScheduled  = event.CronScheduled
	CronJob        = event.CronJob
	CronTimerEarly = event.CronTimerEarly
	CronTimerLate  = event.CronTimerLate
	CronFailed     = event.CronFailed
	CronItemFailed = event.CronItemFailed
)

// The events of jobs.
type (
	JobsClaimed          = event.JobsClaimed
	ClaimFailed          = event.ClaimFailed
	ClaimRefused         = event.ClaimRefused
	JobsAdopted          = event.JobsAdopted
	JobStarted           = event.JobStarted
	JobEnded             = event.JobEnded
	JobCompleted         = event.JobCompleted
	JobFailed            = event.JobFailed
	JobPermanentlyFailed = event.JobPermanentlyFailed
	JobReturned          = event.JobReturned
	JobLost              = event.JobLost
	JobsAborted          = event.JobsAborted
	OutcomesDelayed      = event.OutcomesDelayed
	OutcomeRefused       = event.OutcomeRefused
	Stored               = event.Stored
	OutcomesAbandoned    = event.OutcomesAbandoned
	TaskOutput           = event.TaskOutput
)

// The events of the local queue.
type (
	LocalQueueStarted     = event.LocalQueueStarted
	LocalQueueModeChanged = event.LocalQueueModeChanged
	LocalQueueFetched     = event.LocalQueueFetched
	LocalQueueReturned    = event.LocalQueueReturned
	RefetchDelayStarted   = event.RefetchDelayStarted
	RefetchDelayAborted   = event.RefetchDelayAborted
	RefetchDelayExpired   = event.RefetchDelayExpired
)

// LocalQueueMode is what a local queue is doing.
type LocalQueueMode = event.LocalQueueMode

// The modes of a local queue.
const (
	LocalQueueStarting   = event.LocalQueueStarting
	LocalQueuePolling    = event.LocalQueuePolling
	LocalQueueWaiting    = event.LocalQueueWaiting
	LocalQueueTTLExpired = event.LocalQueueTTLExpired
	LocalQueueReleased   = event.LocalQueueReleased
)

// The events that tell more of a worker's life.
type (
	WorkerCreated        = event.WorkerCreated
	ListenerConnecting   = event.ListenerConnecting
	ListenerReleased     = event.ListenerReleased
	NotificationReceived = event.NotificationReceived
	ClaimStarted         = event.ClaimStarted
	ClaimEmpty           = event.ClaimEmpty
	JobInterrupted       = event.JobInterrupted
	ShutdownForced       = event.ShutdownForced
	ShutdownComplete     = event.ShutdownComplete
	OldLocksResetStarted = event.OldLocksResetStarted
)

// The events of held claims.
type (
	JobsSpilled     = event.JobsSpilled
	HoldLost        = event.HoldLost
	HeldJobsKept    = event.HeldJobsKept
	HoldUnavailable = event.HoldUnavailable
)

// The events of what tasks decide about their jobs.
type (
	JobSnoozed           = event.JobSnoozed
	ErrorAfterCompletion = event.ErrorAfterCompletion
	BackoffPanicked      = event.BackoffPanicked
)

// What the database took in place of an outcome that it had refused.
const (
	StoredFailure    = event.StoredFailure
	StoredUnlocked   = event.StoredUnlocked
	StoredQueueFreed = event.StoredQueueFreed
	StoredQueueKept  = event.StoredQueueKept
	StoredNothing    = event.StoredNothing
)
