package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
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

// logTo writes a worker's events to the log.
func logTo(logger *zap.Logger) []func(gworker.Event) {
	observe := gworker.LogObserver(logger)
	if os.Getenv(quietSuccesses) != "" {
		observe = withoutSuccesses(observe)
	}
	return []func(gworker.Event){observe}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
