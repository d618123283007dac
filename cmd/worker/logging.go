package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/gworker/gworker"
)

// newLogger writes lines for people on a terminal and JSON anywhere else.
func newLogger(to io.Writer, level string) (*zap.Logger, error) {
	parsed, err := zapcore.ParseLevel(level)
	if err != nil || parsed > zapcore.ErrorLevel {
		return nil, fmt.Errorf("--log-level is %q: it can be debug, info, warn or error", level)
	}
	var encoder zapcore.Encoder
	if isTerminal(to) {
		config := zap.NewDevelopmentEncoderConfig()
		config.EncodeLevel = zapcore.CapitalColorLevelEncoder
		config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		config.EncodeDuration = zapcore.StringDurationEncoder
		encoder = zapcore.NewConsoleEncoder(config)
	} else {
		config := zap.NewProductionEncoderConfig()
		config.TimeKey = "time"
		config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		config.EncodeDuration = zapcore.SecondsDurationEncoder
		encoder = zapcore.NewJSONEncoder(config)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(to)), parsed)), nil
}

// bridge returns the logger for package gworker that writes to zap's, at its level
// and with its encoder. Stack traces of the worker's own code say nothing, so none is
// added to errors.
func bridge(logger *zap.Logger) *slog.Logger {
	return slog.New(zapslog.NewHandler(logger.Core(), zapslog.AddStacktraceAt(slog.Level(math.MaxInt))))
}

// silence is for a worker whose events an observer writes.
var silence = slog.New(slog.DiscardHandler)

// logEvents makes a worker write its events to the log.
func logEvents(config *gworker.Config, logger *zap.Logger) {
	config.Logger = bridge(logger)
	if os.Getenv(quietSuccesses) != "" {
		config.Observers = append(config.Observers, withoutSuccesses(gworker.LogObserver(config.Logger)))
		config.Logger = silence
	}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
