package devpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// startTimeout is for a server that recovers from a crash on a slow disk.
	startTimeout = 60 * time.Second
	// stopTimeout is how long a server may take to stop in an orderly way.
	stopTimeout = 30 * time.Second
	// triedPorts is how often another process may take the free port first.
	triedPorts = 5
	// keptLines is how much of the server's log an error quotes.
	keptLines = 20
)

// What the server says; its messages are in English.
const (
	saysReady     = "database system is ready to accept connections"
	saysStandby   = "database system is ready to accept read" // -only connections; a space before version 14
	saysPortTaken = "could not create any TCP/IP sockets"
)

// process is a running server.
type process struct {
	cmd      *exec.Cmd
	watchdog *watchdog
	ready    chan struct{} // closed when the server accepts connections
	gone     chan struct{} // closed when it has ended
	log      []string      // its last lines; read after gone
}

// start starts the server on the cluster.
func (s *Server) start(ctx context.Context) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	defer func() {
		if err != nil {
			s.removeSocket()
		}
	}()
	for try := 1; ; try++ {
		at, err := s.choose(try)
		if err != nil {
			return err
		}
		p, err := s.cluster.run(at, s.options.Settings)
		if err != nil {
			return err
		}
		err = p.waitReady(ctx)
		if err == nil {
			s.process, s.at = p, at
			if at.socket == "" {
				s.cluster.rememberPort(at.port)
			}
			return nil
		}
		p.end(signalImmediate)
		// Its own port after a restart belongs to the server: others may be
		// letting go of it.
		s.removeSocket()
		if try == triedPorts || s.options.Port != 0 || !p.said(saysPortTaken) {
			return fmt.Errorf("PostgreSQL did not start in %s: %w%s", s.cluster.dir, err, p.quote())
		}
	}
}

// choose says where to listen.
func (s *Server) choose(try int) (address, error) {
	if s.options.Private && hasSockets {
		dir, temporary, err := socketFolder(filepath.Dir(s.cluster.dir), s.cluster.account)
		if temporary {
			s.socket = dir
		}
		return address{port: socketPort, socket: dir}, err
	}
	port, err := s.choosePort(try)
	return address{port: port}, err
}

func (s *Server) choosePort(try int) (int, error) {
	switch {
	case s.options.Port != 0:
		return s.options.Port, nil
	case s.at.port != 0:
		return s.at.port, nil
	}
	if last := s.cluster.lastPort(); last != 0 && try == 1 {
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(last))); err == nil {
			return last, l.Close()
		}
	}
	return freePort()
}

// run starts the server's process.
func (c *cluster) run(at address, settings map[string]string) (*process, error) {
	all := map[string]string{
		"max_connections":   "200",
		"logging_collector": "off",
		"log_destination":   "stderr",
		"lc_messages":       "C",
	}
	maps.Copy(all, at.settings())
	if c.fast {
		all["fsync"], all["full_page_writes"] = "off", "off"
	}
	maps.Copy(all, settings)
	args := []string{"-D", c.dir}
	for name, value := range all {
		args = append(args, "-c", name+"="+value)
	}
	cmd := exec.Command(c.programs.path("postgres"), args...)
	cmd.Dir = c.dir
	cmd.Env = environment()
	c.account.run(cmd)
	ownGroup(cmd) // Ctrl-C is for the worker, which needs its database to stop
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	p := &process{cmd: cmd, ready: make(chan struct{}), gone: make(chan struct{})}
	p.watchdog, err = c.watch(cmd.Process.Pid)
	if err != nil {
		err = fmt.Errorf("starting PostgreSQL's watchdog: %w", err)
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	go p.follow(out)
	return p, nil
}

// watch leaves a process behind that ends the server with this process.
func (c *cluster) watch(pid int) (*watchdog, error) {
	if c.temporary {
		return watch(pid, filepath.Dir(c.dir))
	}
	return watch(pid, "")
}

// follow reads the log until the server has ended.
func (p *process) follow(out io.Reader) {
	defer close(p.gone)
	lines := bufio.NewReader(out)
	ready := false
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if len(p.log) == keptLines {
				p.log = slices.Delete(p.log, 0, 1)
			}
			p.log = append(p.log, strings.TrimRight(line, "\n"))
			if !ready && (strings.Contains(line, saysReady) || strings.Contains(line, saysStandby)) {
				ready = true
				close(p.ready)
			}
		}
		if err != nil {
			break
		}
	}
	_ = p.cmd.Wait() // how it ended is in its log
	p.watchdog.release()
}

func (p *process) waitReady(ctx context.Context) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.gone:
		return errors.New("it ended at once")
	case <-timeout.C:
		return fmt.Errorf("it was not ready after %s", startTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end sends a signal and waits, for as long as it takes: a server that was asked
// to stop at once does.
func (p *process) end(how stopSignal) {
	_ = signalProcess(p.cmd.Process, how) // it may have ended by itself
	<-p.gone
}

// said and quote are for a process that has ended.
func (p *process) said(what string) bool {
	return slices.ContainsFunc(p.log, func(line string) bool { return strings.Contains(line, what) })
}

func (p *process) quote() string {
	if len(p.log) == 0 {
		return ""
	}
	return ". Its last messages:\n" + strings.Join(p.log, "\n")
}

// end stops the server one way or another.
func (s *Server) end(ctx context.Context, how stopSignal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.process
	if p == nil {
		return nil
	}
	s.process = nil
	defer s.removeSocket()
	if err := signalProcess(p.cmd.Process, how); err != nil {
		<-p.gone // it ended by itself
		return nil
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	var err error
	select {
	case <-p.gone:
		return nil
	case <-timeout.C:
		err = fmt.Errorf("PostgreSQL did not stop within %s and was ended at once", stopTimeout)
	case <-ctx.Done():
		err = fmt.Errorf("PostgreSQL was ended at once: %w", context.Cause(ctx))
	}
	p.end(signalImmediate)
	return err
}

// removeSocket removes the folder of the socket where that is not the data's.
func (s *Server) removeSocket() {
	if s.socket != "" {
		_ = os.RemoveAll(s.socket) // an empty folder
		s.socket = ""
	}
}
