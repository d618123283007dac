package gworker

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
)

// LogObserver returns the observer that writes events to a log, each at the
// level that docs/events.md gives. Config.Logger installs it; on its own it is
// for programs that log only some events, or in several places. A nil logger writes nothing.
func LogObserver(logger *zap.Logger) func(Event) {
	if logger == nil {
		logger = zap.NewNop()
	}
	// An event whose level is off costs the look at its type.
	core := logger.Core()
	line := func(level zapcore.Level, message string, fields ...zap.Field) {
		if entry := logger.Check(level, message); entry != nil {
			entry.Write(fields...)
		}
	}
	return func(e Event) {
		level := levelOf(e)
		if !core.Enabled(level) {
			return
		}
		switch e := e.(type) {
		case event.JobStarted:
			line(level, "job started", jobFields(e.Job)...)
		case event.JobCompleted:
			line(level, "job completed", ended(e.Job, e.Duration, nil)...)
		case event.JobFailed:
			line(level, "job failed", append(ended(e.Job, e.Duration, e.Err), zap.Time("next_run_at", e.NextRunAt))...)
		case event.JobPermanentlyFailed:
			line(level, "job failed permanently", ended(e.Job, e.Duration, e.Err)...)
		case event.JobReturned:
			line(level, returnedMessage(e), ended(e.Job, e.Duration, e.Err)...)
		case event.JobSnoozed:
			line(level, snoozedMessage(e), snoozedFields(e)...)
		case event.ErrorAfterCompletion:
			line(level, "the run ended with an error after its job was completed in a transaction; the error is not stored",
				append(jobFields(e.Job), zap.NamedError("error", e.Err))...)
		case event.BackoffPanicked:
			line(level, "a task's Backoff panicked; using the shared formula",
				append(jobFields(e.Job), zap.Any("value", e.Value), zap.String("stack", e.Stack))...)
		case event.JobLost:
			line(level, lostMessage(e), append(jobFields(e.Job), zap.Error(e.Err))...)
		case event.JobInterrupted:
			line(level, "ended the context of a running job", append(jobFields(e.Job), zap.NamedError("cause", e.Cause))...)
		case event.TaskOutput:
			line(level, e.Line, jobFields(e.Job)...)
		default:
			logWorker(level, line, e)
		}
	}
}

const retiredMessage = "it was replaced or removed through its key while it ran, and does not come back"

func returnedMessage(e event.JobReturned) string {
	if e.Retired {
		return "job cut off; " + retiredMessage
	}
	return "job returned to the queue"
}

func snoozedMessage(e event.JobSnoozed) string {
	if e.Retired {
		return "job snoozed; " + retiredMessage
	}
	return "job snoozed"
}

// snoozedFields have the reason, if the handler gave one. It is no "error", by
// which people find failures.
func snoozedFields(e event.JobSnoozed) []zap.Field {
	fields := append(ended(e.Job, e.Duration, nil), zap.Duration("for", e.For))
	if _, plain := e.Err.(*SnoozeError); !plain && e.Err != nil {
		fields = append(fields, zap.String("reason", e.Err.Error()))
	}
	return fields
}

func logWorker(level zapcore.Level, line func(zapcore.Level, string, ...zap.Field), e event.Event) {
	switch e := e.(type) {
	case event.WorkerStarted:
		line(level, "worker started", zap.String("worker", e.WorkerID), zap.String("schema", e.Schema),
			zap.Int("concurrency", e.Concurrency), zap.Strings("tasks", e.Tasks))
	case event.WorkerStopping:
		line(level, "worker stopping", zap.String("worker", e.WorkerID), zap.Int("running", e.Running))
	case event.JobsAborted:
		line(level, "ending the contexts of jobs that still run", zap.Int("running", e.Running))
	case event.WorkerStopped:
		line(level, "worker stopped", zap.String("worker", e.WorkerID), zap.Error(e.Err))
	case event.JobsClaimed:
		line(level, "claimed", zap.Int("jobs", e.Count), zap.Int("asked", e.Asked), zap.Duration("duration", e.Duration))
	case event.JobsSpilled:
		line(level, "wrote the locks of jobs that ran longer than they could be held", zap.Int("jobs", e.Count))
	case event.HoldLost:
		line(level, "a transaction that held jobs was lost", zap.Int("kept", e.Kept), zap.Int("lost", e.Lost), zap.Error(e.Err))
	case event.HeldJobsKept:
		line(level, "the database did not delete all jobs that have completed: look for a trigger or rule on the jobs table; "+
			"they will run again", zap.Int("completed", e.Completed), zap.Int("deleted", e.Deleted))
	case event.ClaimFailed:
		line(level, "claiming failed; trying again", zap.Error(e.Err), zap.Duration("retry_in", e.RetryIn))
	case event.JobsAdopted:
		line(level, "running jobs of a claim whose answer was lost", zap.Int("jobs", e.Count))
	case event.OutcomesDelayed:
		line(level, "outcomes could not be stored; kept, trying again",
			zap.Int("jobs", e.Count), zap.Error(e.Err), zap.Duration("retry_in", e.RetryIn))
	case event.OutcomesAbandoned:
		line(level, "outcomes could not be stored before the end; these jobs stay locked until recovery frees them",
			zap.Int64s("job_ids", e.JobIDs), zap.Error(e.Err))
	case event.ListenerConnected:
		line(level, "listening for new jobs", zap.String("worker", e.WorkerID))
	case event.ListenerLost:
		line(level, "listener lost its connection; polling meanwhile", zap.Error(e.Err), zap.Duration("retry_in", e.RetryIn))
	case event.ListenerPooled:
		line(level, "the listener's connection leads through a pooler: if that pools transactions, no notification arrives, "+
			"and new jobs start when they are polled for; listen past it (ListenDatabaseURL, --listen-database-url) or not at all "+
			"(NoListen, --no-listen)")
	case event.DatabaseUnreachable:
		line(level, "cannot reach the database yet; trying again", zap.Error(e.Err), zap.Duration("retry_in", e.RetryIn))
	case event.RevisionApplied:
		line(level, "migrated", zap.String("schema", e.Schema), zap.Int("revision", e.Revision), zap.Bool("breaking", e.Breaking))
	case event.SchemaWarning:
		line(level, e.Message, zap.String("schema", e.Schema))
	case event.BreakingMigration:
		line(level, "another process applied a breaking migration; shutting down",
			zap.String("schema", e.Schema), zap.Int("revision", e.Revision))
	case event.HeartbeatFailed:
		line(level, "heartbeat could not be written; others may take this worker for dead",
			zap.Error(e.Err), zap.Duration("retry_in", e.RetryIn))
	case event.WorkerDeclaredDead:
		line(level, "somebody has taken this worker for dead; registering again", zap.String("worker", e.WorkerID))
	case event.LocksLost:
		line(level, "jobs that run here are no longer locked by this worker; ending their contexts",
			zap.Int64s("job_ids", e.JobIDs))
	case event.WorkerRecovered:
		line(level, "gave back the jobs of a dead worker", zap.String("dead", e.Dead), zap.Duration("silence", e.Silence),
			zap.Int64s("job_ids", e.JobIDs), zap.Int64s("given_up", e.GivenUp), zap.Int64s("skipped", e.Skipped))
	case event.SweepFailed:
		line(level, "looking for dead workers and old locks failed", zap.Error(e.Err))
	case event.WorkerCreated:
		line(level, "worker created", zap.String("worker", e.WorkerID))
	case event.ListenerConnecting:
		line(level, "listener connecting")
	case event.ListenerReleased:
		line(level, "listener closed")
	case event.NotificationReceived:
		line(level, "notification", zap.String("channel", e.Channel), zap.String("payload", e.Payload))
	case event.ClaimStarted:
		line(level, "claiming", zap.Int("asked", e.Asked))
	case event.ClaimEmpty:
		line(level, "nothing to claim", zap.Int("asked", e.Asked), zap.Duration("duration", e.Duration))
	case event.ShutdownForced:
		line(level, "not waiting any longer for handlers; their jobs go back to the queue", zap.Int64s("job_ids", e.JobIDs))
	case event.ShutdownComplete:
		line(level, "shutdown complete", zap.Bool("forced", e.Forced), zap.Duration("duration", e.Duration))
	case event.OldLocksResetStarted:
		line(level, "looking for locks older than 4 hours")
	case event.OldLocksReset:
		line(level, "reset locks older than 4 hours", zap.Int64s("job_ids", e.JobIDs), zap.Strings("queues", e.Queues))
	case event.LocalQueueStarted:
		line(level, "claiming ahead into a local queue", zap.Int("size", e.Size), zap.Duration("ttl", e.TTL))
	case event.LocalQueueModeChanged:
		line(level, "local queue changed its mode", zap.Stringer("from", e.From), zap.Stringer("to", e.To))
	case event.LocalQueueFetched:
		line(level, "local queue fetched", zap.Int("jobs", e.Count), zap.Int("asked", e.Asked))
	case event.LocalQueueReturned:
		line(level, "returning jobs of the local queue", zap.Int64s("job_ids", e.JobIDs), zap.NamedError("reason", e.Reason))
	case event.RefetchDelayStarted:
		line(level, "few jobs; waiting before the next claim", zap.Int("jobs", e.Count), zap.Int("threshold", e.Threshold),
			zap.Duration("delay", e.Delay), zap.Int("abort_threshold", e.AbortThreshold))
	case event.RefetchDelayAborted:
		line(level, "many jobs announced; claiming now", zap.Int("announced", e.Count), zap.Int("abort_threshold", e.AbortThreshold))
	case event.RefetchDelayExpired:
		line(level, "waited long enough before the next claim")
	case event.CronStarting, event.CronStarted, event.CronBackfilled, event.CronTick, event.CronScheduled,
		event.CronTimerEarly, event.CronTimerLate, event.CronFailed, event.CronItemFailed:
		logCron(level, line, e)
	case event.ObserverPanicked:
		line(level, "an observer panicked", zap.Any("value", e.Value), zap.String("stack", e.Stack))
	}
}

func levelOf(e event.Event) zapcore.Level {
	switch e := e.(type) {
	case event.JobStarted, event.JobEnded, event.JobsClaimed, event.ListenerConnected,
		event.LocalQueueStarted, event.LocalQueueModeChanged, event.LocalQueueFetched, event.RefetchDelayStarted,
		event.RefetchDelayAborted, event.RefetchDelayExpired,
		event.CronStarting, event.CronTick, event.CronScheduled, event.CronTimerEarly:
		return zap.DebugLevel
	case event.JobFailed, event.JobPermanentlyFailed, event.OutcomesDelayed, event.OutcomesAbandoned,
		event.ErrorAfterCompletion, event.BackoffPanicked, event.ClaimFailed, event.HeldJobsKept, event.ObserverPanicked, event.BreakingMigration,
		event.SweepFailed, event.CronFailed, event.CronItemFailed:
		return zap.ErrorLevel
	case event.JobLost, event.JobReturned, event.JobsAborted, event.ListenerLost, event.DatabaseUnreachable,
		event.SchemaWarning, event.ListenerPooled, event.JobsAdopted, event.HeartbeatFailed, event.WorkerDeclaredDead,
		event.LocksLost, event.HoldLost, event.WorkerRecovered, event.CronTimerLate:
		return zap.WarnLevel
	case event.WorkerCreated, event.ListenerConnecting, event.ListenerReleased, event.NotificationReceived,
		event.ClaimStarted, event.ClaimEmpty, event.JobsSpilled, event.ShutdownComplete, event.OldLocksResetStarted:
		return zap.DebugLevel
	case event.OldLocksReset:
		if len(e.JobIDs)+len(e.Queues) == 0 {
			return zap.DebugLevel
		}
		return zap.WarnLevel
	case event.ShutdownForced:
		return zap.WarnLevel
	case event.JobInterrupted:
		if errors.Is(e.Cause, ErrJobCancelled) {
			return zap.WarnLevel
		}
		return zap.DebugLevel // JobsAborted or LocksLost tells of it
	case event.TaskOutput:
		if e.IsError {
			return zap.ErrorLevel
		}
	}
	return zap.InfoLevel
}

func jobFields(j *job.Claimed) []zap.Field {
	fields := []zap.Field{
		zap.Int64("job_id", j.ID), zap.String("task", j.Task),
		zap.Int("attempt", j.Attempts), zap.Int("max_attempts", j.MaxAttempts),
	}
	if j.Queue != "" {
		fields = append(fields, zap.String("queue", j.Queue))
	}
	return fields
}

func ended(j *job.Claimed, took time.Duration, err error) []zap.Field {
	fields := append(jobFields(j), zap.Duration("duration", took))
	if err != nil {
		fields = append(fields, zap.NamedError("error", err))
	}
	return fields
}

func lostMessage(e event.JobLost) string {
	if e.Unsure {
		return "job's outcome was stored by an earlier try whose answer was lost, or the job was taken over; nothing more to store"
	}
	return "job was no longer locked by this worker when its run ended; nothing was stored"
}
