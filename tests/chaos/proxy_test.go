//go:build unix

package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// echo answers with what it gets, after its own name.
func echo(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, name)
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

type client struct {
	net.Conn
	t *testing.T
}

func dial(t *testing.T, p *proxy) client {
	t.Helper()
	conn, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return client{conn, t}
}

func (c client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c client) want(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		c.t.Fatalf("got %q, %v; want %q", got, err, text)
	}
}

func (c client) wantCut() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		c.t.Fatalf("got %d bytes from a connection that was cut", n)
	}
}

func TestProxy(t *testing.T) {
	p, err := newProxy(echo(t, "old"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	stays := dial(t, p)
	stays.want("old")

	p.switchTo(echo(t, "new"))
	moves := dial(t, p)
	moves.want("new")
	stays.send("a")
	stays.want("a") // still with the old one

	p.blackhole()
	stays.send("b")
	late := dial(t, p)
	if err := stays.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := stays.Read(make([]byte, 1)); err == nil {
		t.Fatal("something came out of the black hole")
	}
	if err := stays.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	p.heal()
	stays.want("b") // what was swallowed is delivered
	late.want("new")

	p.setDelay(30 * time.Millisecond)
	began := time.Now()
	stays.send("c")
	stays.want("c")
	if took := time.Since(began); took < 60*time.Millisecond {
		t.Errorf("there and back took %s, want twice the delay", took)
	}

	p.setRefuse(true)
	p.cut()
	stays.wantCut()
	moves.wantCut()
	dial(t, p).wantCut()
	p.heal()
	dial(t, p).want("new")
}
