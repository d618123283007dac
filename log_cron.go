package gworker

import (
	"log/slog"

	"github.com/gworker/gworker/event"
)

func logCron(level slog.Level, line func(slog.Level, string, ...slog.Attr), e event.Event) {
	switch e := e.(type) {
	case event.CronStarting:
		line(level, "cron starting", slog.Time("start", e.Start), listAttr("items", e.Items))
	case event.CronStarted:
		line(level, "cron started", slog.Time("start", e.Start), listAttr("items", e.Items))
	case event.CronBackfilled:
		line(level, "cron made up for a missed minute", append(cronJobs(e.Jobs), slog.Time("minute", e.Minute))...)
	case event.CronTick:
		line(level, "cron items are due", slog.Time("minute", e.Minute), listAttr("items", e.Due))
	case event.CronScheduled:
		line(level, "cron scheduled", append(cronJobs(e.Jobs), slog.Time("minute", e.Minute), listAttr("due", e.Due))...)
	case event.CronTimerEarly:
		line(level, "cron woke too early; waiting on", slog.Time("minute", e.Minute), slog.Time("now", e.Now))
	case event.CronTimerLate:
		line(level, "cron woke late; catching up", slog.Time("minute", e.Minute), slog.Duration("late", e.Now.Sub(e.Minute)))
	case event.CronFailed:
		line(level, "cron failed; starting it again", errAttr(e.Err), slog.Duration("retry_in", e.RetryIn))
	case event.CronItemFailed:
		line(level, "the job of a cron item was refused; its minute is given up",
			slog.String("item", e.Identifier), slog.Time("minute", e.Minute), errAttr(e.Err))
	}
}

func cronJobs(jobs []event.CronJob) []slog.Attr {
	names, ids := make([]string, len(jobs)), make([]int64, len(jobs))
	for i, j := range jobs {
		names[i], ids[i] = j.Identifier, j.JobID
	}
	return []slog.Attr{listAttr("items", names), listAttr("job_ids", ids)}
}
