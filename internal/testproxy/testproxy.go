// Package testproxy is a TCP proxy for tests that can fall silent: it accepts what it is
// sent and passes nothing on, like a frozen server, or a firewall that has forgotten a
// connection. It can also be slow, as a network is.
//
// The URL of a server comes in; one that leads there through the proxy goes out. The one
// thing not to break: while it is silent no connection gets an error from it.
package testproxy

import (
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy passes connections on. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	wait     sync.WaitGroup
	delay    atomic.Int64 // of what is passed on, in nanoseconds

	mu      sync.Mutex
	network string
	address string
	passes  chan struct{} // closed while data passes
	ends    chan struct{}
	links   map[net.Conn]*link
}

// link is what holds the data of one connection up.
type link struct {
	frozen chan struct{} // closed when it passes nothing from then on
	once   sync.Once
}

// Start starts a proxy in front of the server of a URL, and ends it with the test. The
// returned URL leads through it.
func Start(t testing.TB, server string) (*Proxy, string) {
	t.Helper()
	network, address := addressOf(t, server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		listener: l, network: network, address: address,
		passes: make(chan struct{}), ends: make(chan struct{}), links: make(map[net.Conn]*link),
	}
	close(p.passes)
	p.wait.Go(p.accept)
	t.Cleanup(p.close)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	q := u.Query()
	q.Del("host")
	q.Del("port")
	u.RawQuery = q.Encode()
	return p, u.String()
}

func addressOf(t testing.TB, server string) (network, address string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	host, port := u.Hostname(), u.Port()
	if h := u.Query().Get("host"); h != "" {
		host = h
	}
	if p := u.Query().Get("port"); p != "" {
		port = p
	}
	if len(host) > 0 && host[0] == '/' {
		return "unix", host + "/.s.PGSQL." + port
	}
	return "tcp", net.JoinHostPort(host, port)
}

// Silence lets nothing pass, of connections that there are and of those to come, until
// Heal.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.passes:
		p.passes = make(chan struct{})
	default:
	}
}

// Delay has what is passed on from now on take that long, in each direction.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Freeze lets nothing pass of the connections that there are, and never will. New ones
// are good.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		l.freeze()
	}
}

// Heal lets everything pass again that was held up by Silence.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.passes:
	default:
		close(p.passes)
	}
}

// SwitchTo sends new connections to another server.
func (p *Proxy) SwitchTo(t testing.TB, server string) {
	t.Helper()
	network, address := addressOf(t, server)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.address = network, address
}

// Connections is how many there are.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l := &link{frozen: make(chan struct{})}
		p.mu.Lock()
		p.links[client] = l
		p.mu.Unlock()
		p.wait.Go(func() {
			p.serve(client, l)
			p.mu.Lock()
			delete(p.links, client)
			p.mu.Unlock()
		})
	}
}

func (p *Proxy) serve(client net.Conn, l *link) {
	defer client.Close()
	if !p.pass(l) {
		return
	}
	p.mu.Lock()
	network, address := p.network, p.address
	p.mu.Unlock()
	server, err := net.DialTimeout(network, address, time.Minute)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() {
		p.copy(l, client, server)
		_ = client.Close()
	})
	both.Go(func() {
		p.copy(l, server, client)
		_ = server.Close()
	})
	both.Wait()
}

func (p *Proxy) copy(l *link, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.pass(l) {
				return
			}
			time.Sleep(time.Duration(p.delay.Load()))
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			p.pass(l) // silence hides the end of a connection, too
			return
		}
	}
}

// pass waits until data may pass; false means that it never will.
func (p *Proxy) pass(l *link) bool {
	p.mu.Lock()
	passes := p.passes
	p.mu.Unlock()
	select {
	case <-l.frozen:
		<-p.ends
		return false
	default:
	}
	select {
	case <-passes:
		return true
	case <-l.frozen:
		<-p.ends
		return false
	case <-p.ends:
		return false
	}
}

func (l *link) freeze() { l.once.Do(func() { close(l.frozen) }) }

func (p *Proxy) close() {
	_ = p.listener.Close()
	close(p.ends)
	p.mu.Lock()
	for client := range p.links {
		_ = client.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
}
