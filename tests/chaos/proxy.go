//go:build unix

package main

import (
	"errors"
	"net"
	"sync"
	"time"
)

// proxy passes TCP connections on to a backend, and can delay, cut and refuse them. What
// was sent into a black hole is delivered when that ends, as TCP would.
type proxy struct {
	listener net.Listener
	wait     sync.WaitGroup

	mu      sync.Mutex
	backend string
	delay   time.Duration
	open    chan struct{} // closed while data passes
	refuse  bool
	closed  bool
	links   map[*link]struct{}
}

// link is one connection through the proxy.
type link struct {
	client net.Conn
	server net.Conn // nil until connected
	once   sync.Once
	done   chan struct{}
}

func newProxy(backend string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, backend: backend, open: make(chan struct{}), links: make(map[*link]struct{})}
	close(p.open)
	p.wait.Go(p.accept)
	return p, nil
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.mu.Lock()
		if p.refuse || p.closed {
			p.mu.Unlock()
			_ = client.Close()
			continue
		}
		k := &link{client: client, done: make(chan struct{})}
		p.links[k] = struct{}{}
		p.mu.Unlock()
		p.wait.Go(func() { p.serve(k) })
	}
}

func (p *proxy) serve(k *link) {
	defer p.end(k)
	if !p.pass(k) {
		return
	}
	p.mu.Lock()
	backend := p.backend
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", backend, 5*time.Second)
	if err != nil {
		return
	}
	p.mu.Lock()
	k.server = server
	_, alive := p.links[k]
	p.mu.Unlock()
	if !alive { // cut meanwhile
		_ = server.Close()
		return
	}
	p.wait.Go(func() {
		defer p.end(k)
		p.copy(k, server, k.client)
	})
	p.copy(k, k.client, server)
}

func (p *proxy) copy(k *link, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.pass(k) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			p.pass(k) // the end of a connection is swallowed by a black hole too
			return
		}
	}
}

// pass delays data as the proxy is told to; false means that the link is cut.
func (p *proxy) pass(k *link) bool {
	p.mu.Lock()
	open, delay := p.open, p.delay
	p.mu.Unlock()
	select {
	case <-open:
	case <-k.done:
		return false
	}
	if delay == 0 {
		return true
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.done:
		return false
	}
}

func (p *proxy) end(k *link) {
	k.once.Do(func() {
		close(k.done)
		p.mu.Lock()
		delete(p.links, k)
		server := k.server
		p.mu.Unlock()
		_ = k.client.Close()
		if server != nil {
			_ = server.Close()
		}
	})
}

// setDelay delays each piece of data, from now on.
func (p *proxy) setDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// blackhole lets nothing pass until heal.
func (p *proxy) blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// setRefuse turns new connections away.
func (p *proxy) setRefuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for k := range p.links {
		links = append(links, k)
	}
	p.mu.Unlock()
	for _, k := range links {
		p.end(k)
	}
}

// heal ends all faults of the proxy.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.refuse = 0, false
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// switchTo sends new connections elsewhere; those that exist stay.
func (p *proxy) switchTo(backend string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backend = backend
}

func (p *proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.cut()
	p.wait.Wait()
}
