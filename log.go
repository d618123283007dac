package gworker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/statement"
)

// LogObserver returns the observer that writes events to a log, each at the level
// and with the attributes that docs/events.md gives. Config.Logger installs it; on
// its own it is for programs that log only some events, or in several places. A nil
// logger is slog.Default() at the time of the call; slog.New(slog.DiscardHandler)
// is one that writes nothing. Where the logger's handler panics, the observer panics
// with the same value; where it ends its goroutine, with an error that says so.
func LogObserver(logger *slog.Logger) func(event.Event) {
	log := newEventLog(logger)
	return func(e event.Event) {
		if err := log.observe(e); err != nil {
			value, _ := contain.Cause(err)
			panic(value)
		}
	}
}

// observe writes the line of an event. The error is what the log's handler has done
// instead of returning.
func (l *eventLog) observe(e event.Event) (failure error) {
	level := levelOf(e)
	if !l.enabled(level) {
		return nil // an event whose level is off costs the look at its type
	}
	if failure = l.writeEvent(level, e); failure == nil {
		failure = l.unreported()
	}
	return failure
}

func (l *eventLog) writeEvent(level slog.Level, e event.Event) (failure error) {
	line := func(level slog.Level, message string, attrs ...slog.Attr) {
		failure = l.write(context.Background(), level, message, attrs...)
	}
	switch e := e.(type) {
	case event.JobStarted:
		line(level, "job started", jobFields(e.Job)...)
	case event.JobCompleted:
		line(level, "job completed", ended(e.Job, e.Duration, nil)...)
	case event.JobFailed:
		line(level, "job failed", append(ended(e.Job, e.Duration, e.Err), slog.Time("next_run_at", e.NextRunAt))...)
	case event.JobPermanentlyFailed:
		line(level, "job failed permanently", ended(e.Job, e.Duration, e.Err)...)
	case event.JobReturned:
		line(level, returnedMessage(e), ended(e.Job, e.Duration, e.Err)...)
	case event.JobSnoozed:
		line(level, snoozedMessage(e), snoozedFields(e)...)
	case event.ErrorAfterCompletion:
		line(level, "the run ended with an error after its job was completed in a transaction; the error is not stored",
			append(jobFields(e.Job), errAttr(e.Err))...)
	case event.OutcomeRefused:
		line(level, "the database refused to store how the run ended; look for a constraint or a trigger on the tables of jobs and queues",
			append(jobFields(e.Job), slog.String("stored", string(e.Stored)), errAttr(e.Err))...)
	case event.ClaimRefused:
		line(level, "the database refused to lock a job, so it does not run; look for a constraint or a trigger on the tables of jobs and queues",
			append(jobFields(e.Job), errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))...)
	case event.BackoffPanicked:
		line(level, "a task's Backoff panicked; using the shared formula",
			append(jobFields(e.Job), slog.String("value", contain.TextOf(e.Value)), slog.String("stack", e.Stack))...)
	case event.JobLost:
		line(level, lostMessage(e), append(jobFields(e.Job), errAttr(e.Err))...)
	case event.JobInterrupted:
		line(level, "ended the context of a running job", append(jobFields(e.Job), slog.Any("cause", e.Cause))...)
	case event.TaskOutput:
		line(level, e.Line, jobFields(e.Job)...)
	default:
		logWorker(level, line, e)
	}
	return failure
}

func panickedMessage(e event.ObserverPanicked) string {
	if e.On == nil {
		return "Config.Now, Recovery.Decide or the log of LogMiddleware panicked; going on without it"
	}
	return "an observer panicked"
}

func unreachableMessage(e event.DatabaseUnreachable) string {
	if statement.IsReadOnly(e.Err) {
		return "the database takes no writes yet; trying again"
	}
	return "cannot reach the database yet; trying again"
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
func snoozedFields(e event.JobSnoozed) []slog.Attr {
	fields := append(ended(e.Job, e.Duration, nil), slog.Duration("for", e.For))
	//nolint:errorlint // what is around a SnoozeError is the reason
	if _, plain := contain.Original(e.Err).(*SnoozeError); !plain && e.Err != nil {
		fields = append(fields, slog.String("reason", e.Err.Error()))
	}
	return fields
}

func logWorker(level slog.Level, line func(slog.Level, string, ...slog.Attr), e event.Event) {
	switch e := e.(type) {
	case event.WorkerStarted:
		line(level, "worker started", slog.String("worker_id", e.WorkerID), slog.String("schema", e.Schema),
			slog.Int("concurrency", e.Concurrency), listAttr("tasks", e.Tasks))
	case event.WorkerStopping:
		line(level, "worker stopping", slog.String("worker_id", e.WorkerID), slog.Int("running", e.Running))
	case event.JobsAborted:
		line(level, "ending the contexts of jobs that still run", slog.Int("running", e.Running))
	case event.WorkerStopped:
		line(level, "worker stopped", slog.String("worker_id", e.WorkerID), errAttr(e.Err))
	case event.JobsClaimed:
		line(level, "claimed", slog.Int("jobs", e.Count), slog.Int("asked", e.Asked), durationAttr(e.Duration))
	case event.JobsSpilled:
		line(level, "wrote the locks of jobs that ran longer than they could be held", slog.Int("jobs", e.Count))
	case event.HoldLost:
		line(level, "a transaction that held jobs was lost", slog.Int("kept", e.Kept), slog.Int("lost", e.Lost), errAttr(e.Err))
	case event.HoldUnavailable:
		line(level, "no connection to hold jobs by; locking them meanwhile", errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.HeldJobsKept:
		line(level, "the database did not delete all jobs that have completed: look for a trigger or rule on the jobs table; "+
			"they will run again", slog.Int("completed", e.Completed), slog.Int("deleted", e.Deleted))
	case event.ClaimFailed:
		line(level, "claiming failed; trying again", errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.JobsAdopted:
		line(level, "running jobs of a claim whose answer was lost", slog.Int("jobs", e.Count))
	case event.OutcomesDelayed:
		line(level, "outcomes could not be stored; kept, trying again",
			slog.Int("jobs", e.Count), errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.OutcomesAbandoned:
		line(level, "outcomes could not be stored before the end; these jobs stay locked until recovery frees them",
			listAttr("job_ids", e.JobIDs), errAttr(e.Err))
	case event.ListenerConnected:
		line(level, "listening for new jobs", slog.String("worker_id", e.WorkerID))
	case event.ListenerLost:
		line(level, "listener lost its connection; polling meanwhile", errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.ListenerPooled:
		line(level, "the listener's connection leads through a pooler: if that pools transactions, no notification arrives, "+
			"and new jobs start when they are polled for; listen past it (ListenDatabaseURL, --listen-database-url) or not at all "+
			"(NoListen, --no-listen)")
	case event.DatabaseUnreachable:
		line(level, unreachableMessage(e), errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.RevisionApplied:
		line(level, "migrated", slog.String("schema", e.Schema), slog.Int("revision", e.Revision), slog.Bool("breaking", e.Breaking))
	case event.SchemaWarning:
		line(level, e.Message, slog.String("schema", e.Schema))
	case event.BreakingMigration:
		line(level, "another process applied a breaking migration; shutting down",
			slog.String("schema", e.Schema), slog.Int("revision", e.Revision))
	case event.HeartbeatFailed:
		if e.RetryIn == 0 {
			line(level, "the worker has ended and could not deregister; others will declare it dead", errAttr(e.Err))
			break
		}
		line(level, "heartbeat could not be written; others may declare this worker dead",
			errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.WorkerDeclaredDead:
		line(level, "another process has declared this worker dead; registering again", slog.String("worker_id", e.WorkerID))
	case event.LocksLost:
		line(level, "jobs that run here are no longer locked by this worker; ending their contexts",
			listAttr("job_ids", e.JobIDs))
	case event.WorkerRecovered:
		line(level, "gave back the jobs of a dead worker", slog.String("dead", e.Dead), slog.Duration("silence", e.Silence),
			listAttr("job_ids", e.JobIDs), listAttr("given_up", e.GivenUp), listAttr("skipped", e.Skipped), listAttr("refused", e.Refused))
	case event.SweepFailed:
		if e.JobID != 0 {
			line(level, "the database refuses to unlock a job; trying again with the next look", slog.Int64("job_id", e.JobID), errAttr(e.Err))
			return
		}
		line(level, "looking for dead workers and old locks failed", errAttr(e.Err))
	case event.WorkerCreated:
		line(level, "worker created", slog.String("worker_id", e.WorkerID))
	case event.ListenerConnecting:
		line(level, "listener connecting")
	case event.ListenerReleased:
		line(level, "listener closed")
	case event.NotificationReceived:
		line(level, "notification", slog.String("channel", e.Channel), slog.String("payload", e.Payload))
	case event.ClaimStarted:
		line(level, "claiming", slog.Int("asked", e.Asked))
	case event.ClaimEmpty:
		line(level, "nothing to claim", slog.Int("asked", e.Asked), durationAttr(e.Duration))
	case event.ShutdownForced:
		line(level, "not waiting any longer for handlers; their jobs go back to the queue", listAttr("job_ids", e.JobIDs))
	case event.ShutdownComplete:
		line(level, "shutdown complete", slog.Bool("forced", e.Forced), durationAttr(e.Duration))
	case event.OldLocksResetStarted:
		line(level, "looking for locks older than 4 hours")
	case event.OldLocksReset:
		line(level, "reset locks older than 4 hours", listAttr("job_ids", e.JobIDs), listAttr("queues", e.Queues))
	case event.LocalQueueStarted:
		line(level, "claiming ahead into a local queue", slog.Int("size", e.Size), slog.Duration("ttl", e.TTL))
	case event.LocalQueueModeChanged:
		line(level, "local queue changed its mode", slog.String("from", e.From.String()), slog.String("to", e.To.String()))
	case event.LocalQueueFetched:
		line(level, "local queue fetched", slog.Int("jobs", e.Count), slog.Int("asked", e.Asked))
	case event.LocalQueueReturned:
		line(level, "returning jobs of the local queue", listAttr("job_ids", e.JobIDs), slog.Any("reason", e.Reason))
	case event.RefetchDelayStarted:
		line(level, "few jobs; waiting before the next claim", slog.Int("jobs", e.Count), slog.Int("threshold", e.Threshold),
			slog.Duration("delay", e.Delay), slog.Int("abort_threshold", e.AbortThreshold))
	case event.RefetchDelayAborted:
		line(level, "many jobs announced; claiming now", slog.Int("announced", e.Count), slog.Int("abort_threshold", e.AbortThreshold))
	case event.RefetchDelayExpired:
		line(level, "waited long enough before the next claim")
	case event.CronStarting, event.CronStarted, event.CronBackfilled, event.CronTick, event.CronScheduled,
		event.CronTimerEarly, event.CronTimerLate, event.CronFailed, event.CronItemFailed:
		logCron(level, line, e)
	case event.ObserverPanicked:
		line(level, panickedMessage(e), slog.String("value", contain.TextOf(e.Value)), slog.String("stack", e.Stack))
	}
}

func levelOf(e event.Event) slog.Level {
	switch e := e.(type) {
	case event.JobStarted, event.JobEnded, event.JobsClaimed, event.ListenerConnected,
		event.LocalQueueStarted, event.LocalQueueModeChanged, event.LocalQueueFetched, event.RefetchDelayStarted,
		event.RefetchDelayAborted, event.RefetchDelayExpired,
		event.CronStarting, event.CronTick, event.CronScheduled, event.CronTimerEarly:
		return slog.LevelDebug
	case event.JobFailed, event.JobPermanentlyFailed, event.OutcomesDelayed, event.OutcomeRefused, event.OutcomesAbandoned,
		event.ErrorAfterCompletion, event.BackoffPanicked, event.ClaimFailed, event.ClaimRefused, event.HeldJobsKept, event.ObserverPanicked, event.BreakingMigration,
		event.SweepFailed, event.CronFailed, event.CronItemFailed:
		return slog.LevelError
	case event.JobLost, event.JobReturned, event.JobsAborted, event.ListenerLost, event.DatabaseUnreachable,
		event.SchemaWarning, event.ListenerPooled, event.JobsAdopted, event.HeartbeatFailed, event.WorkerDeclaredDead,
		event.LocksLost, event.HoldLost, event.HoldUnavailable, event.WorkerRecovered, event.CronTimerLate:
		return slog.LevelWarn
	case event.WorkerCreated, event.ListenerConnecting, event.ListenerReleased, event.NotificationReceived,
		event.ClaimStarted, event.ClaimEmpty, event.JobsSpilled, event.ShutdownComplete, event.OldLocksResetStarted:
		return slog.LevelDebug
	case event.OldLocksReset:
		if len(e.JobIDs)+len(e.Queues) == 0 {
			return slog.LevelDebug
		}
		return slog.LevelWarn
	case event.ShutdownForced:
		return slog.LevelWarn
	case event.JobInterrupted:
		if errors.Is(e.Cause, ErrJobCancelled) {
			return slog.LevelWarn
		}
		return slog.LevelDebug // JobsAborted or LocksLost tells of it
	case event.TaskOutput:
		if e.IsError {
			return slog.LevelError
		}
	}
	return slog.LevelInfo
}

func jobFields(j *job.Claimed) []slog.Attr {
	fields := []slog.Attr{
		slog.Int64("job_id", j.ID), slog.String("task", j.Task),
		slog.Int("attempt", j.Attempts), slog.Int("max_attempts", j.MaxAttempts),
	}
	if j.Queue != "" {
		fields = append(fields, slog.String("queue", j.Queue))
	}
	return fields
}

func ended(j *job.Claimed, took time.Duration, err error) []slog.Attr {
	return append(jobFields(j), durationAttr(took), errAttr(err), stackAttr(err))
}

func lostMessage(e event.JobLost) string {
	if e.Unsure {
		return "job's outcome was stored by an earlier try whose answer was lost, or the job was taken over; nothing more to store"
	}
	return "job was no longer locked by this worker when its run ended; nothing was stored"
}
