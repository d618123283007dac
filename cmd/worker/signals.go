package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// echoTime is within which a second signal counts as the same: a terminal signals every
// process of a group, and process managers forward their signals.
const echoTime = time.Second

// outliveReaders keeps the process running when the reader of its log ends, as head does.
// Writes then fail, which must not interrupt jobs. The signal is handled and not ignored,
// since the processes of tasks would inherit that. Call it before anything is logged.
func outliveReaders() (stop func()) {
	lost := make(chan os.Signal, 1)
	signal.Notify(lost, syscall.SIGPIPE)
	return func() { signal.Stop(lost) }
}

// untilSignal returns a context that the first SIGINT, SIGTERM or SIGHUP ends.
// A later one calls force. now tells the time. release stops listening and waits
// for the goroutine.
func untilSignal(
	ctx context.Context, logger *zap.Logger, now func() time.Time, force func(),
) (_ context.Context, release func()) {
	ctx, stop := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var first time.Time
		for {
			select {
			case <-quit:
				return
			case got := <-signals:
				switch {
				case first.IsZero():
					first = now()
					logger.Info("stopping: letting running jobs finish (signal again to end at once)",
						zap.String("signal", got.String()))
					stop(fmt.Errorf("signal %s", got))
				case now().Sub(first) > echoTime:
					logger.Warn("ending at once: running jobs go back to the queue", zap.String("signal", got.String()))
					force()
				default:
					logger.Debug("taken for an echo of the signal before", zap.String("signal", got.String()))
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(quit)
		<-done
		stop(nil)
	}
}
