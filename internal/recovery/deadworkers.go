package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
)

// Metadata is what a worker stores about itself when it registers. Other runtimes
// write other members, or none.
type Metadata struct {
	Runtime     string    `json:"runtime"`
	Version     string    `json:"version"`
	Host        string    `json:"host"`
	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
	Tasks       []string  `json:"tasks"`
	Concurrency int       `json:"concurrency"`
	// StaleAfterSeconds is the worker's own StaleAfter: a sweeper waits at least as
	// long before it presumes the worker dead.
	StaleAfterSeconds float64 `json:"stale_after_seconds"`
	// LooksFor is the same in workers that look for the same jobs, and share the looking.
	LooksFor string `json:"looks_for,omitempty"`
}

// deadWorker is a lock holder that is presumed dead.
type deadWorker struct {
	id         string
	registered bool
	silence    time.Duration // since its heartbeat, or since its oldest lock
	bound      time.Duration // only locks at least as old are taken from it
	queues     bool          // its queues without a job are unlocked, too
	// patience is how long it must have been silent while nothing kept its heartbeat
	// from the database. seen is how long ago another process noted its silence; it is
	// negative if none has.
	patience, seen time.Duration
}

// deadWorkers are those that are presumed dead now.
//
// A worker whose own heartbeat is missing, or was until just now, presumes no other dead:
// what kept its heartbeat from the database may have kept theirs, too. Both its row and the
// worker itself are asked, the worker second: a heartbeat that has just reached the server
// makes the row look healthy before the worker knows that it was late.
func (s *sweep) deadWorkers(ctx context.Context, q *dbgen.Queries) ([]deadWorker, error) {
	live, err := q.LiveWorkers(ctx, s.StaleAfter.Seconds())
	if err != nil {
		return nil, fmt.Errorf("looking for live workers: %w", err)
	}
	if s.Self != "" && !slices.Contains(live, s.Self) {
		return nil, nil
	}
	stale, err := q.StaleWorkers(ctx, s.StaleAfter.Seconds())
	if err != nil {
		return nil, fmt.Errorf("looking for stale workers: %w", err)
	}
	var found []deadWorker
	for _, row := range stale {
		silence := elapsed.Seconds(row.SilentFor)
		if row.ID == s.Self || silence < ownBound(row.ID, row.Metadata) {
			continue
		}
		w := deadWorker{id: row.ID, registered: true, silence: silence, queues: true, patience: s.StaleAfter, seen: elapsed.Seconds(row.Seen)}
		if strings.HasPrefix(row.ID, OwnPrefix) {
			w.patience = max(w.patience, ownBound(row.ID, row.Metadata))
		}
		found = append(found, w)
	}
	rustRegisters := slices.ContainsFunc(live, func(id string) bool { return strings.HasPrefix(id, rustPrefix) })
	unregistered, err := q.UnregisteredHolders(ctx, s.StaleAfter.Seconds())
	if err != nil {
		return nil, fmt.Errorf("looking for holders of locks that are not registered: %w", err)
	}
	for _, row := range unregistered {
		w := deadWorker{id: row.ID, silence: elapsed.Seconds(row.Oldest), patience: s.StaleAfter, seen: -1}
		switch {
		case row.ID == s.Self || strings.HasPrefix(row.ID, UnregisteredPrefix):
			continue
		case strings.HasPrefix(row.ID, OwnPrefix):
			w.bound, w.queues = s.StaleAfter, true
		case strings.HasPrefix(row.ID, rustPrefix) && rustRegisters:
			w.bound, w.queues = max(s.StaleAfter, rustStaleAfter), true
		case s.NodeLocksOlderThan > 0 && isNode(row.ID):
			// A pool's id is that of all its workers: the others may live.
			w.bound = s.NodeLocksOlderThan
		default:
			continue
		}
		if w.silence >= w.bound {
			found = append(found, w)
		}
	}
	return s.watched(ctx, found)
}

// watched returns the workers whose silence was observed for long enough, and notes the
// silence of the others.
func (s *sweep) watched(ctx context.Context, silent []deadWorker) ([]deadWorker, error) {
	if s.Watched == nil {
		return silent, nil
	}
	here, unbroken := s.Watched()
	var dead []deadWorker
	var news []string
	for _, w := range silent {
		noted := w.registered && w.seen >= 0 && w.seen < unbroken
		switch {
		case here >= w.patience || noted && w.seen >= w.patience:
			dead = append(dead, w)
		case w.registered && !noted:
			news = append(news, w.id)
		}
	}
	if len(news) == 0 || s.DryRun {
		return dead, nil
	}
	return dead, s.note(ctx, news)
}

// note notes the silence of workers. If the database refuses that, only processes that live
// long enough to observe the silence themselves declare them dead.
func (s *sweep) note(ctx context.Context, silent []string) error {
	told := false
	err := salvage(silent, func(ids []string) error {
		return s.apart(ctx, func(q *dbgen.Queries) error {
			return q.NoteSilence(ctx, dbgen.NoteSilenceParams{Ids: ids, Threshold: s.StaleAfter.Seconds()})
		})
	}, func(id string, err error) {
		if !told {
			s.refuse(event.SweepFailed{Err: fmt.Errorf("noting that worker %q is silent: %w", id, err)})
		}
		told = true
	})
	if err != nil {
		return fmt.Errorf("noting that workers are silent: %w", err)
	}
	return nil
}

// stillDead returns the workers that have written no heartbeat while their jobs were being
// locked, which may have taken a while.
func (s *sweep) stillDead(ctx context.Context, q *dbgen.Queries, dead []deadWorker) ([]deadWorker, error) {
	var registered []string
	for _, w := range dead {
		if w.registered {
			registered = append(registered, w.id)
		}
	}
	if len(registered) == 0 {
		return dead, nil
	}
	still, err := q.StillStaleWorkers(ctx, dbgen.StillStaleWorkersParams{Ids: registered, Threshold: s.StaleAfter.Seconds()})
	if err != nil {
		return nil, fmt.Errorf("looking again at stale workers: %w", err)
	}
	return slices.DeleteFunc(dead, func(w deadWorker) bool { return w.registered && !slices.Contains(still, w.id) }), nil
}

// ownBound is the silence that a registered worker asks others to tolerate.
func ownBound(id, metadata string) time.Duration {
	if strings.HasPrefix(id, rustPrefix) {
		return rustStaleAfter
	}
	var m Metadata
	if json.Unmarshal([]byte(metadata), &m) != nil || m.StaleAfterSeconds < 0 {
		return 0 // not gworker's
	}
	return elapsed.Seconds(min(m.StaleAfterSeconds, (4 * time.Hour).Seconds()))
}

func isNode(id string) bool {
	return slices.ContainsFunc(nodePrefixes, func(p string) bool { return strings.HasPrefix(id, p) })
}
