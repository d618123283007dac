package retry

import (
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Backoff returns a fresh sequence of waits for a class: 50 ms to 5 s for
// contention, 3 s to 120 s otherwise, growing by 1.5.
func Backoff(c Class) backoff.BackOff {
	if c == Contention {
		return growing(50*time.Millisecond, 5*time.Second, 1.5, jitter)
	}
	return growing(3*time.Second, 120*time.Second, 1.5, jitter)
}

// StartBackoff is for the start of a worker, or of a client: 200 ms to 5 s.
func StartBackoff() backoff.BackOff {
	return growing(200*time.Millisecond, 5*time.Second, 1.5, backoff.DefaultRandomizationFactor)
}

// CronBackoff is for the scheduler of cron items, as on Node: 200 ms to a minute.
func CronBackoff() backoff.BackOff {
	return growing(200*time.Millisecond, time.Minute, 1.5, jitter)
}

// LongestListen is the longest wait of ListenBackoff, to which jitter is added, too.
const LongestListen = 60 * time.Second

// ListenBackoff is for a listener's connection: 50 ms to 60 s, growing by e.
func ListenBackoff() backoff.BackOff {
	return growing(50*time.Millisecond, LongestListen, math.E, jitter)
}

// HeartbeatBackoff is for a heartbeat that failed: 200 ms to the interval of heartbeats,
// doubling, without jitter.
func HeartbeatBackoff(interval time.Duration) backoff.BackOff {
	return growing(min(200*time.Millisecond, interval), interval, 2, 0)
}

// AnnounceBackoff is for a notification that could not be sent: from 50 ms on, doubling,
// without jitter. Its tries are few.
func AnnounceBackoff() backoff.BackOff { return growing(50*time.Millisecond, time.Second, 2, 0) }

// MigrationBackoff is for a run that another process has overtaken: from 20 ms on,
// doubling, without jitter. Its tries are few.
func MigrationBackoff() backoff.BackOff { return growing(20*time.Millisecond, time.Second, 2, 0) }

// MigrationLockBackoff is for the lock of migrations: 10 ms to 500 ms, doubling.
func MigrationLockBackoff() backoff.BackOff {
	return growing(10*time.Millisecond, 500*time.Millisecond, 2, 0.5)
}

// jitter is how far a wait may be from its place in the sequence: of many workers that
// lose their server together, few try again together.
const jitter = 0.3

// growing never ends.
func growing(first, longest time.Duration, factor, jitter float64) backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, longest
	b.Multiplier, b.RandomizationFactor = factor, jitter
	b.Reset()
	return b
}
