//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// database is the one that the queue lives in.
const database = "chaos"

// server is a PostgreSQL on a folder of data. internal/devpg makes the first
// one; but it knows no standbys, so from there on servers are run here.
type server struct {
	name    string
	bin     string // the folder with the programs
	data    string
	port    int
	account *syscall.Credential // nil: our own
	log     io.Writer
	clock   *clock // nil: the system's

	cmd      *exec.Cmd
	watchdog io.Closer
	gone     chan struct{}
}

const serverPatience = time.Minute

func (s *server) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// url is for a session of this program itself, which no proxy disturbs.
func (s *server) url() string { return databaseURL(s.port, harnessApp) }

func databaseURL(port int, app string) string {
	user := role
	if app == harnessApp {
		user = superuser
	}
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable&application_name=%s", user, port, database, app)
}

func (s *server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.bin+"/"+program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.account}
	return cmd
}

// start runs the server and returns once it accepts connections.
func (s *server) start(ctx context.Context, extra ...string) error {
	args := []string{"-D", s.data}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "port=" + strconv.Itoa(s.port),
		"max_connections=200", "logging_collector=off", "log_destination=stderr", "lc_messages=C",
		// Only the processes crash here, not the machine.
		"fsync=off", "full_page_writes=off",
		"wal_retrieve_retry_interval=100ms", "wal_keep_size=256MB", "max_wal_size=256MB",
	}, extra...) {
		args = append(args, "-c", setting)
	}
	cmd := s.command("postgres", args...)
	cmd.Env = append(cmd.Env, s.clock.environment()...)
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	ready := make(chan struct{})
	s.cmd, s.gone = cmd, make(chan struct{})
	s.watchdog, err = watch(cmd.Process.Pid)
	go s.follow(out, ready, s.gone)
	if err != nil {
		return errors.Join(err, s.stop(syscall.SIGQUIT))
	}
	timer := time.NewTimer(serverPatience)
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-s.gone:
		err = errors.New("it ended at once")
	case <-timer.C:
		err = fmt.Errorf("it was not ready after %s", serverPatience)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return fmt.Errorf("starting %s: %w", s.name, errors.Join(err, s.stop(syscall.SIGQUIT)))
}

// follow copies the server's log until the server has ended.
func (s *server) follow(out io.Reader, ready, gone chan struct{}) {
	defer close(gone)
	once := sync.OnceFunc(func() { close(ready) })
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(s.log, line)
		if strings.Contains(line, "ready to accept") {
			once()
		}
		if err != nil {
			break
		}
	}
	_ = s.cmd.Wait() // how it ended is in its log
}

// stop ends the server: SIGINT is fast, SIGQUIT immediate.
func (s *server) stop(how syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(how)
	timer := time.NewTimer(serverPatience)
	defer timer.Stop()
	var err error
	select {
	case <-s.gone:
	case <-timer.C:
		err = fmt.Errorf("%s did not stop within %s", s.name, serverPatience)
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		<-s.gone
	}
	s.cmd = nil
	if s.watchdog != nil {
		_ = s.watchdog.Close()
		s.watchdog = nil
	}
	return err
}

// exec runs statements in a session of its own.
func (s *server) exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.url())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// value asks for one value in a session of its own.
func value[T any](ctx context.Context, s *server, sql string, args ...any) (found T, err error) {
	conn, err := pgx.Connect(ctx, s.url())
	if err != nil {
		return found, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql, args...).Scan(&found)
	return found, err
}

// watchdog is a shell that stops a server when this process ends, in whatever
// way, and so closes the shell's standard input.
type watchdog struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func watch(pid int) (io.Closer, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r _; kill -QUIT "$1" 2>/dev/null`, "chaos-watchdog", strconv.Itoa(pid))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &watchdog{cmd: cmd, stdin: stdin}, cmd.Start()
}

// Close ends the watchdog, not the server.
func (w *watchdog) Close() error {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	return w.stdin.Close()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
