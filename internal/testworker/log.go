package testworker

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
)

// A Log is what a logger wrote, a map of attributes a line.
type Log struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

// Write is for the logger.
func (l *Log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(line)
}

// RecordLog returns a logger of everything and what it wrote.
func RecordLog() (*slog.Logger, *Log) {
	l := &Log{}
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), l
}

// String is all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

// Where returns the lines that ok accepts.
func (l *Log) Where(t *testing.T, ok func(line map[string]any) bool) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for decoder := json.NewDecoder(bytes.NewReader(l.lines.Bytes())); decoder.More(); {
		line := map[string]any{}
		if err := decoder.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if ok(line) {
			found = append(found, line)
		}
	}
	return found
}

// Saying returns the lines with that message.
func (l *Log) Saying(t *testing.T, message string) []map[string]any {
	t.Helper()
	return l.Where(t, func(line map[string]any) bool { return line["msg"] == message })
}
