package listener

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// KeepAlive readies a configuration for a connection that mostly waits. It
// changes config, so give it a copy.
//
// The system probes a silent TCP connection, which also keeps the entries of
// firewalls on the way alive. The dial function stays, since it may lead through
// a proxy. A notification handler does not: it would take the notifications
// away from the listener.
func KeepAlive(config *pgx.ConnConfig) {
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			// A system that cannot do this still has the listener's own pings.
			_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
				Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3,
			})
		}
		return conn, err
	}
	config.OnNotification = nil
}
