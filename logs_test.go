package gworker_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
)

// logged is what a logger wrote, a map of attributes a line.
type logged struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(line)
}

// recordLog returns a logger of everything and what it wrote.
func recordLog() (*slog.Logger, *logged) {
	l := &logged{}
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})), l
}

// where returns the lines that ok accepts.
func (l *logged) where(t *testing.T, ok func(line map[string]any) bool) []map[string]any {
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

// saying returns the lines with that message.
func (l *logged) saying(t *testing.T, message string) []map[string]any {
	t.Helper()
	return l.where(t, func(line map[string]any) bool { return line["msg"] == message })
}
