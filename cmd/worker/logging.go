package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/terminal"
)

// The values of --log-format.
const (
	formatAuto    = "auto"
	formatConsole = "console"
	formatJSON    = "json"
)

// newLogger writes lines for people or JSON; automatically, lines on a terminal and
// JSON anywhere else.
func newLogger(to io.Writer, level, format string) (*zap.Logger, error) {
	parsed, err := zapcore.ParseLevel(level)
	if err != nil || parsed > zapcore.ErrorLevel {
		return nil, fmt.Errorf("--log-level is %q: it can be debug, info, warn or error", level)
	}
	out := terminal.NewWriter(to)
	switch {
	case format == formatConsole, format == formatAuto && out.IsTerminal():
		return consoleLogger(out, parsed, out.IsTerminal() && os.Getenv("NO_COLOR") == ""), nil
	case format != formatAuto && format != formatJSON:
		return nil, fmt.Errorf("--log-format is %q: it can be %s, %s or %s", format, formatAuto, formatConsole, formatJSON)
	}
	config := zap.NewProductionEncoderConfig()
	config.TimeKey = "time"
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	config.EncodeDuration = zapcore.SecondsDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(config), zapcore.Lock(zapcore.AddSync(out)), parsed)), nil
}

// consoleLogger writes lines for people, in colors or without.
func consoleLogger(to *terminal.Writer, level zapcore.Level, colors bool) *zap.Logger {
	config := zap.NewDevelopmentEncoderConfig()
	config.EncodeLevel = zapcore.CapitalLevelEncoder
	if colors {
		config.EncodeLevel, to = zapcore.CapitalColorLevelEncoder, to.WithColors()
	}
	config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	config.EncodeDuration = zapcore.StringDurationEncoder
	encoder := lineEncoder{zapcore.NewConsoleEncoder(config)}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(to)), level))
}

// lineEncoder keeps messages, which may be output of tasks, on one line; zap writes
// attributes as JSON.
type lineEncoder struct{ zapcore.Encoder }

func (e lineEncoder) Clone() zapcore.Encoder { return lineEncoder{e.Encoder.Clone()} }

func (e lineEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	entry.Message = terminal.Line(entry.Message)
	return e.Encoder.EncodeEntry(entry, fields)
}

// bridge returns a logger for package gworker that writes to zap's, with its level and
// encoder. It adds no stack traces to errors, since those of the worker's own code do not
// help.
func bridge(logger *zap.Logger) *slog.Logger {
	return slog.New(bridged{Handler: zapslog.NewHandler(logger.Core(), zapslog.AddStacktraceAt(slog.Level(math.MaxInt)))})
}

// bridged is a handler that the worker calls directly, without containing panics.
type bridged struct {
	slog.Handler
	contain.Ours
}

// silence turns the log off for a worker whose events an observer prints.
var silence = slog.New(slog.DiscardHandler)

// logEvents makes a worker write its events to the log.
func logEvents(config *gworker.Config, logger *zap.Logger) {
	config.Logger = bridge(logger)
	if os.Getenv(quietSuccesses) != "" {
		config.Observers = append(config.Observers, withoutSuccesses(gworker.LogObserver(config.Logger)))
		config.Logger = silence
	}
}
