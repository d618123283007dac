//go:build unix

package main

import (
	"errors"

	"github.com/gworker/gworker"
)

// recoverSoon sets the short thresholds of this program.
func recoverSoon(config *gworker.Config) {
	config.Recovery = gworker.RecoveryConfig{
		HeartbeatInterval: heartbeat, SweepInterval: sweepInterval, StaleAfter: staleAfter,
	}
}

// lostJob says that a handler's context ended because its job was taken away.
func lostJob(cause error) bool { return errors.Is(cause, gworker.ErrJobLost) }
