package event

import (
	"log/slog"
)

// HistoryInstalled reports that the tables of history were made, or brought up to date.
// Logged at info.
type HistoryInstalled struct {
	Schema  string // the schema
	Version int    // the version that its history has now
}

func (HistoryInstalled) level() slog.Level { return slog.LevelInfo }
func (e HistoryInstalled) line() (string, []slog.Attr) {
	return "the tables of history are up to date", []slog.Attr{slog.String("schema", e.Schema), slog.Int("version", e.Version)}
}

// HistoryDropped reports events that were not recorded in history, once a minute at most:
// a task has failed more often than the cap of events a second allows, or the tables of
// history are missing, locked or out of reach. The jobs themselves do not suffer. Logged at
// warn.
type HistoryDropped struct {
	WorkerID string // the worker's id
	Count    int    // how many, since the last HistoryDropped
	Err      error  // why, of the latest
}

func (HistoryDropped) level() slog.Level { return slog.LevelWarn }
func (e HistoryDropped) line() (string, []slog.Attr) {
	return "events were not recorded in history", []slog.Attr{slog.Int("dropped", e.Count), errAttr(e.Err)}
}

// HistoryUnwritten reports that statistics could not be written, or the tables of history
// not be kept in order. The worker tries again later, and reports the first failure in a
// row. Logged at warn.
type HistoryUnwritten struct {
	WorkerID string // the worker's id
	Err      error  // why
}

func (HistoryUnwritten) level() slog.Level { return slog.LevelWarn }
func (e HistoryUnwritten) line() (string, []slog.Attr) {
	return "history could not be written; trying again", []slog.Attr{errAttr(e.Err)}
}
