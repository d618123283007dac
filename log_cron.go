package gworker

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gworker/gworker/internal/event"
)

func logCron(level zapcore.Level, line func(zapcore.Level, string, ...zap.Field), e event.Event) {
	switch e := e.(type) {
	case event.CronStarting:
		line(level, "cron starting", zap.Time("start", e.Start), zap.Strings("items", e.Items))
	case event.CronStarted:
		line(level, "cron started", zap.Time("start", e.Start), zap.Strings("items", e.Items))
	case event.CronBackfilled:
		line(level, "cron made up for a missed minute", append(cronJobs(e.Jobs), zap.Time("minute", e.Minute))...)
	case event.CronTick:
		line(level, "cron items are due", zap.Time("minute", e.Minute), zap.Strings("items", e.Due))
	case event.CronScheduled:
		line(level, "cron scheduled", append(cronJobs(e.Jobs), zap.Time("minute", e.Minute), zap.Strings("due", e.Due))...)
	case event.CronTimerEarly:
		line(level, "cron woke too early; waiting on", zap.Time("minute", e.Minute), zap.Time("now", e.Now))
	case event.CronTimerLate:
		line(level, "cron woke late; catching up", zap.Time("minute", e.Minute), zap.Duration("late", e.Now.Sub(e.Minute)))
	case event.CronFailed:
		line(level, "cron failed; starting it again", zap.Error(e.Err), zap.Duration("retry_in", e.RetryIn))
	case event.CronItemFailed:
		line(level, "the job of a cron item was refused; its minute is given up",
			zap.String("item", e.Identifier), zap.Time("minute", e.Minute), zap.Error(e.Err))
	}
}

func cronJobs(jobs []event.CronJob) []zap.Field {
	names, ids := make([]string, len(jobs)), make([]int64, len(jobs))
	for i, j := range jobs {
		names[i], ids[i] = j.Identifier, j.JobID
	}
	return []zap.Field{zap.Strings("items", names), zap.Int64s("job_ids", ids)}
}
