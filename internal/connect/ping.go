package connect

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// idleBeforePing is how long a connection may be idle before it is pinged; it is
	// pgxpool's default.
	idleBeforePing = time.Second
	// pingTimeout bounds the answer, unless pool_ping_timeout does.
	pingTimeout = 3 * time.Second
)

// pinger pings idle connections of gworker's own pools before they are used. pgxpool would
// do it too, but it does not report the result: if one connection has died silently, the
// others mostly have as well, and each would cost a time-out.
type pinger struct {
	timeout time.Duration
	silent  func() // called after a connection has not answered
}

// failed is a pool's ShouldPing. It reports true for a connection that does not
// answer, which is closed then, so that pgxpool's own Ping fails at once and it takes
// another one.
func (p *pinger) failed(ctx context.Context, params pgxpool.ShouldPingParams) bool {
	if params.IdleDuration < idleBeforePing {
		return false
	}
	timeout := p.timeout
	if timeout <= 0 {
		timeout = pingTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := params.Conn.Ping(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		p.silent()
	}
	return err != nil
}
