//go:build unix

// Package testbouncer gives tests a real PgBouncer in transaction mode in front of the
// test's own server.
//
// A test and the URL of a database come in; a pooler that ends with the test goes out.
// The one thing not to break: it pools as harshly as it can. It uses its server
// connections in turn, so that two transactions of one client rarely meet the same one,
// and what a client leaves behind in a session is found by the others.
package testbouncer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// RequireEnv names the environment variable that, set to 1, makes a missing
// PgBouncer fail a test where it would have skipped it.
const RequireEnv = "GWORKER_REQUIRE_PGBOUNCER"

// timeout is for a start or an end on a machine that is busy with everything else.
const timeout = time.Minute

// Options say how to pool. The zero value has 4 server connections.
type Options struct {
	// Size is how many server connections there are.
	Size int
	// Sessions keeps a client's server connection for as long as it stays,
	// where transactions are pooled otherwise.
	Sessions bool
	// Statements gives a client a server connection for single statements, so that it
	// can have no transactions.
	Statements bool
}

// A Bouncer is a PgBouncer that runs, until Stop or the test's end.
type Bouncer struct {
	t       testing.TB
	program string
	config  string // its file
	port    int
	through *url.URL
	cmd     *exec.Cmd
	open    io.Closer // closing it ends the pooler
	size    int
	single  bool // it has no transactions
	log     *os.File
}

// Start starts a PgBouncer before the server of a database. Without the program
// the test is skipped with the reason, or fails if RequireEnv is 1.
func Start(t testing.TB, database string, o Options) *Bouncer {
	t.Helper()
	program, err := find()
	switch {
	case err == nil:
	case os.Getenv(RequireEnv) == "1":
		t.Fatal(err)
	default:
		t.Skipf("%v (%s=1 makes this a failure)", err, RequireEnv)
	}
	b := &Bouncer{t: t, program: program, port: freePort(t)}
	if b.through, err = url.Parse(database); err != nil {
		t.Fatal(err)
	}
	b.through.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port))
	b.configure(database, o)
	b.Run()
	t.Cleanup(func() {
		b.Stop()
		if t.Failed() {
			text, _ := os.ReadFile(b.log.Name())
			t.Logf("PgBouncer wrote:\n%s", text)
		}
	})
	return b
}

// find also looks where root's PATH leads and others' may not.
func find() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no PgBouncer on this machine (on Debian: apt-get install pgbouncer)")
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (b *Bouncer) configure(database string, o Options) {
	b.t.Helper()
	server, err := pgconn.ParseConfig(database)
	if err != nil {
		b.t.Fatal(err)
	}
	b.size = cmp.Or(o.Size, 4)
	mode := "transaction"
	if o.Sessions {
		mode = "session"
	}
	if b.single = o.Statements; b.single {
		mode = "statement"
	}
	login := fmt.Sprintf("host=%s port=%d user=%s", server.Host, server.Port, server.User)
	if server.Password != "" {
		login += " password=" + server.Password
	}
	settings := []string{
		"[databases]",
		"* = " + login,
		"[pgbouncer]",
		"listen_addr = 127.0.0.1",
		"listen_port = " + strconv.Itoa(b.port),
		"unix_socket_dir =",
		"auth_type = any",
		"pool_mode = " + mode,
		"default_pool_size = " + strconv.Itoa(b.size),
		"max_client_conn = 500",
		"server_round_robin = 1",
		"query_wait_timeout = 60",
		"log_connections = 0",
		"log_disconnections = 0",
	}
	if os.Geteuid() == 0 {
		settings = append(settings, "user = nobody") // it refuses to stay root
	}
	dir := b.t.TempDir()
	b.config = filepath.Join(dir, "pgbouncer.ini")
	// It may hold the server's password.
	if err := os.WriteFile(b.config, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if b.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = b.log.Close() })
}

// URL is the connection string through the pooler.
func (b *Bouncer) URL() string { return b.through.String() }

// untilClosed runs the program until the shell's standard input ends, which it
// does with the test's process too, however that ends.
const untilClosed = `"$0" "$1" & read -r nothing; kill -9 $!; wait`

// Run starts a pooler that was stopped, at the same address.
func (b *Bouncer) Run() {
	b.t.Helper()
	b.cmd = exec.Command("sh", "-c", untilClosed, b.program, b.config)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	var err error
	if b.open, err = b.cmd.StdinPipe(); err != nil {
		b.t.Fatalf("starting PgBouncer: %v", err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatalf("starting PgBouncer: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := b.fill(ctx)
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			text, _ := os.ReadFile(b.log.Name())
			b.t.Fatalf("PgBouncer does not answer: %v\n%s", err, text)
		}
	}
}

// fill makes the pooler open all of its server connections, which it does only
// for clients that want them at the same time.
func (b *Bouncer) fill(ctx context.Context) error {
	for range b.size {
		conn, err := pgx.Connect(ctx, b.URL())
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		if b.single {
			return conn.Ping(ctx)
		}
		if _, err := conn.Exec(ctx, "begin"); err != nil {
			return err
		}
		defer conn.Exec(ctx, "rollback")
	}
	return nil
}

// Stop ends the pooler at once, and with it every connection through it.
func (b *Bouncer) Stop() {
	b.t.Helper()
	if b.cmd == nil {
		return
	}
	if err := b.open.Close(); err != nil {
		b.t.Errorf("stopping PgBouncer: %v", err)
	}
	// How it ended does not matter to anybody.
	_ = b.cmd.Wait()
	b.cmd = nil
}
