package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
)

// clockSamples is how often the clocks are compared; the quickest answer counts.
const clockSamples = 5

func checkClock(ctx context.Context, c *checker) (Finding, error) {
	var best struct{ ahead, trip time.Duration }
	for i := range clockSamples {
		var ahead, trip time.Duration
		err := c.read(ctx, func(ctx context.Context, q *dbgen.Queries) error {
			start := time.Now()
			before := c.options.Now()
			row, err := q.DoctorClock(ctx)
			// By the monotonic clock, so that the round trip is not negative if
			// the clock is set in between.
			trip = time.Since(start)
			ahead = time.UnixMicro(row.NowUs).Sub(before.Add(trip / 2).Round(0))
			return err
		})
		if err != nil {
			return Finding{}, err
		}
		if i == 0 || trip < best.trip {
			best.ahead, best.trip = ahead, trip
		}
	}
	return judgeClock(best.ahead, best.trip), nil
}

// judgeClock judges how far the database's clock is ahead, with an error of up to half the
// round trip.
func judgeClock(ahead, trip time.Duration) Finding {
	certain := max(0, ahead.Abs()-trip/2)
	if certain < clockOff {
		return ok(fmt.Sprintf("The clocks of this machine and the database differ by %s, measured over a round trip of %s.",
			age(ahead), age(trip)))
	}
	severity := Warning
	if certain >= clockWayOff {
		severity = Problem
	}
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	return Finding{
		Severity: severity,
		What: fmt.Sprintf("The database's clock is %s %s this machine's, measured over a round trip of %s.",
			age(ahead), direction, age(trip)),
		Why: "Jobs run by the database's clock. A run_at that a program computes from its own is early or late by the " +
			"difference, and cron fires by the worker's clock.",
		Help: []string{"Synchronize both with NTP: chronyc tracking, or timedatectl timesync-status."},
	}
}
