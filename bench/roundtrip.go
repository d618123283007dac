package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A distance is a network between the sides and the server: a proxy that keeps every byte
// back for half of the round trip. It has no bandwidth, so a large answer takes no longer
// than a small one.
type distance struct {
	listener net.Listener
	server   url.URL // as it is seen from here
	half     time.Duration
	ctx      context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// newDistance puts one in front of the server of that URL.
func newDistance(server string, roundTrip time.Duration) (*distance, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, errors.New("the server's address is no URL") // not the text, which may have a password
	}
	network, address := "tcp", u.Host
	if host := u.Query().Get("host"); strings.HasPrefix(host, "/") {
		network, address = "unix", host+"/.s.PGSQL."+u.Query().Get("port")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening the proxy: %w", err)
	}
	q := u.Query()
	q.Del("host")
	q.Del("port")
	u.Host, u.RawQuery = l.Addr().String(), q.Encode()
	d := &distance{listener: l, server: *u, half: roundTrip / 2}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.running.Go(func() { d.accept(network, address) })
	return d, nil
}

// database is the URL of a database behind it.
func (d *distance) database(name string) string {
	u := d.server
	u.Path = "/" + name
	return u.String()
}

func (d *distance) accept(network, address string) {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return // closed
		}
		far, err := net.Dial(network, address)
		if err != nil {
			_ = near.Close() // the side tells that it cannot connect
			continue
		}
		ends := context.AfterFunc(d.ctx, func() { _, _ = near.Close(), far.Close() })
		var both sync.WaitGroup
		both.Go(func() { d.carry(far, near) })
		both.Go(func() { d.carry(near, far) })
		d.running.Go(func() {
			both.Wait()
			ends()
		})
	}
}

// carry carries what one end says to the other, in its time.
func (d *distance) carry(to, from net.Conn) {
	type chunk struct {
		bytes []byte
		at    time.Time
	}
	chunks := make(chan chunk, 4096)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				chunks <- chunk{b[:n], time.Now().Add(d.half)}
			}
			if err != nil {
				return // the end of what there is to carry
			}
		}
	}()
	a, err := newAlarm()
	if err != nil {
		tell("bench: %v", err)
	}
	for c := range chunks {
		if wait := time.Until(c.at); wait > 0 && err == nil {
			err = a.wait(d.ctx, wait)
		}
		if _, writeErr := to.Write(c.bytes); writeErr != nil {
			break // the other end is gone
		}
	}
	// Whoever still speaks shall hear that nobody listens.
	_, _ = to.Close(), from.Close()
	for range chunks {
	}
	if a != nil {
		_ = a.close()
	}
}

func (d *distance) close() {
	_ = d.listener.Close()
	d.stop()
	d.running.Wait()
}
