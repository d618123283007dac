package gworkertest

import (
	"bytes"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// testLogger returns a logger that writes to the test's log until it is stopped:
// a line that comes after the end of a test would make the program panic.
func testLogger(t testing.TB) (logger *zap.Logger, stop func()) {
	w := &testWriter{t: t}
	config := zap.NewDevelopmentEncoderConfig()
	config.TimeKey, config.CallerKey, config.StacktraceKey = "", "", ""
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(config), w, zap.DebugLevel)
	return zap.New(core, zap.ErrorOutput(w)), w.stop
}

type testWriter struct {
	mu      sync.Mutex
	t       testing.TB
	stopped bool
}

func (w *testWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.t.Logf("%s", bytes.TrimRight(line, "\n"))
	}
	return len(line), nil
}

func (w *testWriter) Sync() error { return nil }

func (w *testWriter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}
