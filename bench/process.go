package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// A process is a side that runs.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stderr  bytes.Buffer
	spawned time.Time
	changed chan struct{} // gets a value when there is news
	exited  chan struct{}
	heard   func(reply) // of probes; may be nil

	mu     sync.Mutex
	ready  bool
	latest reply
	end    *reply
	series [][2]int64 // when, and how many jobs were finished
	err    error
}

func (b *bench) spawn(ctx context.Context, p *peer, o order, heard func(reply)) (*process, error) {
	cmd, err := p.command(b, o)
	if err != nil {
		return nil, err
	}
	s := &process{cmd: cmd, changed: make(chan struct{}, 1), exited: make(chan struct{}), heard: heard}
	cmd.Stderr = &s.stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	s.stdin, s.spawned = stdin, time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	line, _ := json.Marshal(o) // strings and numbers
	_, err = stdin.Write(append(line, '\n'))
	go s.follow(stdout)
	if err != nil {
		s.kill()
		return nil, fmt.Errorf("ordering %s: %w", p.name, err)
	}
	return s, nil
}

func (s *process) follow(stdout io.Reader) {
	lines := bufio.NewReader(stdout)
	var broken error
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var r reply
		if err := json.Unmarshal(line, &r); err != nil {
			broken = fmt.Errorf("it said %.100q: %w", line, err)
			continue
		}
		if r.Event == "probe" && s.heard != nil {
			s.heard(r)
			continue
		}
		s.mu.Lock()
		switch r.Event {
		case "ready":
			s.ready = true
		case "count":
			s.latest = r
			s.series = append(s.series, [2]int64{r.At, r.Finished})
		case "end":
			s.end = &r
			s.latest = r
		}
		s.mu.Unlock()
		s.tell()
	}
	err := errors.Join(broken, s.cmd.Wait())
	s.mu.Lock()
	if err == nil && s.end == nil {
		err = errors.New("it ended without a report")
	}
	if err != nil {
		s.err = fmt.Errorf("the side's process failed: %w: %s", err, lastLines(s.stderr.String()))
	}
	s.mu.Unlock()
	close(s.exited)
	s.tell()
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

func (s *process) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *process) state() (latest reply, ready bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest, s.ready, s.err
}

// wait waits until the side is ready.
func (s *process) wait(ctx context.Context) error {
	for {
		_, ready, err := s.state()
		if err != nil || ready {
			return err
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a side to be ready: %w", context.Cause(ctx))
		}
	}
}

// stop asks for an orderly end, and returns what the side reports.
func (s *process) stop(ctx context.Context) (reply, error) {
	_ = s.stdin.Close() // it may have ended already
	return s.report(ctx)
}

// report waits for the end of a side that ends by itself.
func (s *process) report(ctx context.Context) (reply, error) {
	select {
	case <-s.exited:
	case <-ctx.Done():
		s.kill()
		return reply{}, fmt.Errorf("waiting for a side to end: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return reply{}, s.err
	}
	return *s.end, nil
}

// kill is for a run that has failed. It does nothing to a side that has ended.
func (s *process) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

func (s *process) pid() int { return s.cmd.Process.Pid }

// goCommand is this program as a side.
func goCommand(*bench, order) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), sideEnv+"=1")
	return cmd, nil
}
