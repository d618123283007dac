package doctor_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/doctor"
)

// pooler is a small one: clients get a server connection for a transaction, or
// for as long as they stay.
type pooler struct {
	t        testing.TB
	server   string
	listener net.Listener
	sessions bool

	mu   sync.Mutex
	free []*pgconn.HijackedConn // the last one used is the next
}

// behind is the patient as seen through a pooler.
func (p patient) behind(sessions bool) patient {
	p.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	l := &pooler{t: p.t, server: p.url, listener: listener, sessions: sessions}
	var serving sync.WaitGroup
	serving.Go(func() { l.serve(&serving) })
	p.t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
		for _, conn := range l.free {
			_ = conn.Conn.Close()
		}
	})
	through, err := url.Parse(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	through.Host = "127.0.0.1:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	p.url = through.String()
	return p.as(func(*pgxpool.Config) {})
}

func (l *pooler) serve(serving *sync.WaitGroup) {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer conn.Close()
			err := l.client(pgproto3.NewBackend(conn, conn))
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) {
				l.t.Errorf("pooler: %v", err)
			}
		})
	}
}

func (l *pooler) client(client *pgproto3.Backend) error {
	if _, err := client.ReceiveStartupMessage(); err != nil {
		return err
	}
	client.Send(&pgproto3.AuthenticationOk{})
	client.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	client.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	client.Send(&pgproto3.BackendKeyData{ProcessID: 4_000_000_000, SecretKey: []byte{1, 2, 3, 4}})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := client.Flush(); err != nil {
		return err
	}
	var server *pgconn.HijackedConn
	defer func() {
		if server != nil {
			l.release(server)
		}
	}()
	for {
		message, err := client.Receive()
		if err != nil {
			return err
		}
		if _, ends := message.(*pgproto3.Terminate); ends {
			return nil
		}
		if server == nil {
			if server, err = l.acquire(); err != nil {
				return err
			}
		}
		server.Frontend.Send(message)
		switch message.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
		default:
			continue
		}
		status, err := answer(client, server.Frontend)
		if err != nil {
			return err
		}
		if status == 'I' && !l.sessions {
			l.release(server)
			server = nil
		}
	}
}

// answer passes on what the server says until it is ready.
func answer(client *pgproto3.Backend, server *pgproto3.Frontend) (status byte, err error) {
	if err := server.Flush(); err != nil {
		return 0, err
	}
	for {
		message, err := server.Receive()
		if err != nil {
			return 0, err
		}
		client.Send(message)
		if ready, is := message.(*pgproto3.ReadyForQuery); is {
			return ready.TxStatus, client.Flush()
		}
	}
}

func (l *pooler) acquire() (*pgconn.HijackedConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		conn := l.free[n-1]
		l.free = l.free[:n-1]
		return conn, nil
	}
	conn, err := pgconn.Connect(context.Background(), l.server)
	if err != nil {
		return nil, err
	}
	return conn.Hijack()
}

func (l *pooler) release(conn *pgconn.HijackedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, conn)
}

func TestBehindATransactionPooler(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := healthyIn(t, oddName).behind(false)
	// The migrator is the one part that does not care, so that the pool has
	// prepared nothing itself.
	r := p.examine()
	want(t, r, "pooler", doctor.Problem, "prepared statements do not survive", "--no-prepared-statements", "max_prepared_statements")
	wantOthersOK(t, r, "pooler")
	r = p.examine(func(o *doctor.Options) { o.Unprepared = true })
	want(t, r, "pooler", doctor.Warning, "gives each transaction any server process", "LISTEN")
	wantOthersOK(t, r, "pooler")
	r = p.as(func(c *pgxpool.Config) { c.MaxConns = 1 }).examine()
	want(t, r, "pooler", doctor.Note, "for want of a second connection")
}

func TestBehindASessionPooler(t *testing.T) {
	r := healthyIn(t, oddName).behind(true).examine()
	want(t, r, "pooler", doctor.Note, "sessions keep their server process")
	wantOthersOK(t, r, "pooler")
}
