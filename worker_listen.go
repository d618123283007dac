package gworker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/cancel"
	"github.com/gworker/gworker/internal/listener"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
)

// The channels of the shared schema. They belong to the database, so another
// schema's notifications arrive here too.
const (
	channelInsert  = "jobs:insert"
	channelMigrate = "worker:migrate"
)

// maxAnnounced bounds how many jobs one notification can announce; any role may send one.
const maxAnnounced = 1_000_000

// listen turns notifications into wake-ups until ctx ends. stop is called with
// ErrBreakingMigration if this worker must no longer run. The returned channel
// closes when everything that listen has started has ended.
func (w *Worker) listen(ctx context.Context, before migrate.Ledger, stop context.CancelCauseFunc) <-chan struct{} {
	done := make(chan struct{})
	if w.config.NoListen {
		go func() {
			defer close(done)
			w.watchSchema(ctx, before, stop)
		}()
		return done
	}
	l, err := listener.New(listener.Config{
		Connect:  w.listenConnect,
		Channels: []string{channelInsert, channelMigrate, cancel.Channel},
		OnState:  w.listenerState,
		Take:     w.leavesToOthers,
	})
	if err != nil { // the channels are constants
		panic(fmt.Sprintf("gworker: listener for its own channels: %v", err))
	}
	w.listener.Store(l)
	go func() {
		defer close(done)
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			w.watchSchema(ctx, before, stop)
		}()
		defer func() { <-watching }()
		_ = l.Run(ctx, func(ctx context.Context, batch listener.Batch) {
			w.hear(ctx, batch, before, stop)
		})
		w.events.Emit(event.ListenerReleased{WorkerID: w.id})
	}()
	return done
}

// leaveServer drops every connection to a server that has become read-only: after a failover,
// new ones reach the new primary.
func (w *Worker) leaveServer() {
	w.pool.Reset()
	if l := w.listener.Load(); l != nil {
		l.Reconnect()
	}
}

// trouble is called with errors that cast doubt on all connections.
func (w *Worker) trouble(err error) {
	if statement.IsReadOnly(err) {
		w.leaveServer()
		return
	}
	w.suspect()
}

// suspect has every connection checked, or replaced, before its next use: one has not
// answered, and the others are likely to be dead for the same reason.
func (w *Worker) suspect() {
	w.pool.Reset()
	if l := w.listener.Load(); l != nil {
		l.Check()
	}
	if k := w.heartbeat.Load(); k != nil {
		k.Suspect()
	}
	w.scheduler.Suspect()
}

func (w *Worker) listenerState(s listener.State) {
	switch s.Kind {
	case listener.Connecting:
		w.events.Emit(event.ListenerConnecting{WorkerID: w.id})
	case listener.Connected:
		w.events.Emit(event.ListenerConnected{WorkerID: w.id})
		w.scheduler.DatabaseBack()
	case listener.Lost:
		w.events.Emit(event.ListenerLost{WorkerID: w.id, Err: s.Err, RetryIn: s.RetryIn})
	}
}

// announced is how many jobs a notification of jobs:insert announces.
func announced(n listener.Notification) int {
	return min(max(0, listener.InsertCount(n.Payload)), maxAnnounced)
}

// leavesToOthers reports whether a notification is about jobs that others of the fleet look
// for first, and has this worker look after them. Most are in a large fleet, so they cost as
// little as can be. Where observers want to be told of each, hear sees to them.
func (w *Worker) leavesToOthers(n listener.Notification) bool {
	if n.Channel != channelInsert || w.fleet == nil || w.events.WantsFrequent() {
		return false
	}
	jobs := announced(n)
	if jobs == 0 {
		return true
	}
	turn := w.fleet.Turn(n.Payload, jobs)
	if turn > 0 {
		w.scheduler.LookWithin(turn)
	}
	return turn > 0
}

// hear acts on a batch of notifications. After a gap any notification may have been missed.
func (w *Worker) hear(ctx context.Context, batch listener.Batch, before migrate.Ledger, stop context.CancelCauseFunc) {
	added, migrated, cancelled := 0, batch.Gap, false
	turn := time.Duration(math.MaxInt64) // when it is this worker's to look
	frequent := w.events.WantsFrequent()
	for _, n := range batch.Notifications {
		if frequent {
			w.events.Emit(event.NotificationReceived{WorkerID: w.id, Channel: n.Channel, Payload: n.Payload})
		}
		switch n.Channel {
		case channelInsert:
			if jobs := announced(n); jobs > 0 {
				added += jobs
				turn = min(turn, w.fleet.Turn(n.Payload, jobs))
			}
		case channelMigrate:
			migrated = true
		case cancel.Channel:
			cancelled = cancelled || cancel.Concerns(n.Payload, w.id)
		}
	}
	switch {
	case batch.Gap || added > 0 && turn == 0:
		w.scheduler.Announce(added)
	case added > 0:
		w.scheduler.LookWithin(turn)
	}
	if cancelled || batch.Gap {
		w.lockWatch.LookForCancelled(cancelled)
	}
	if migrated {
		w.checkLedger(ctx, before, stop)
	}
}

// checkLedger stops the worker if its own schema has got a breaking revision since it
// started. The notification alone does not prove that, since it may be about another schema.
// If the ledger cannot be read, watchSchema tries again.
func (w *Worker) checkLedger(ctx context.Context, before migrate.Ledger, stop context.CancelCauseFunc) {
	now, err := migrate.CheckLedger(ctx, w.pool, w.options.Schema)
	// Whatever has ended a connection of the pool may have ended all of them.
	for tries := w.pool.Stat().MaxConns(); err != nil && retry.AtOnce(err) && tries > 0; tries-- {
		now, err = migrate.CheckLedger(ctx, w.pool, w.options.Schema)
	}
	var incompatible *migrate.IncompatibleError
	if err != nil && !errors.As(err, &incompatible) {
		if again := w.unread.Swap(true); !again && ctx.Err() == nil {
			w.events.Emit(event.SchemaWarning{
				Schema:  w.options.Schema.String(),
				Message: fmt.Sprintf("cannot see whether the schema was migrated meanwhile; trying again: %v", err),
			})
		}
		return
	}
	w.unread.Store(false)
	if incompatible != nil {
		w.client.schema.refuse(incompatible)
	}
	for _, revision := range now.Since(before) {
		if revision.Breaking {
			w.events.Emit(event.BreakingMigration{
				WorkerID: w.id, Schema: w.options.Schema.String(), Revision: revision.ID,
			})
			stop(fmt.Errorf("%w: revision %d of schema %q", ErrBreakingMigration, revision.ID, w.options.Schema))
			return
		}
	}
}

// watchSchema looks for changes of which there is no notification: for breaking migrations,
// if there is no listener or the ledger could not be read, for policies that hide all jobs
// from the worker, and for new rules.
func (w *Worker) watchSchema(ctx context.Context, before migrate.Ledger, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(w.config.Recovery.HeartbeatInterval)
	defer ticker.Stop()
	hidden := false // and reported
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if w.config.NoListen || w.unread.Load() {
			w.checkLedger(ctx, before, stop)
		}
		found, err := w.client.unchecked.On(w.pool).SchemaReach(ctx, w.options.Schema.String())
		if err != nil || !found.Installed {
			continue // claims say so
		}
		err = w.reached(found)
		hidden = err != nil && (hidden || w.warnOfHidden(err))
	}
}
