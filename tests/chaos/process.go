//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// process is one worker process, from its start to its end.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}

	mu     sync.Mutex
	ids    []string // what it locks jobs with
	events map[string]int
	killed time.Time
	asked  bool // to end, by a fault
	// After exited:
	ended time.Time
	err   error
}

// startProcess starts a command, gives it its order and reads what it says.
func startProcess(name string, cmd *exec.Cmd, o order, logs string) (*process, error) {
	p := &process{name: name, cmd: cmd, exited: make(chan struct{}), events: make(map[string]int)}
	stderr, err := os.Create(filepath.Join(logs, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd.Stderr = stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		_ = stderr.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	err = cmd.Start()
	_ = stderr.Close() // the process has it
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	line, _ := json.Marshal(o) // strings and numbers
	_, err = stdin.Write(append(line, '\n'))
	go p.follow(stdout)
	if err != nil {
		_ = cmd.Process.Kill()
		<-p.exited
		return nil, fmt.Errorf("ordering %s: %w", name, err)
	}
	return p, nil
}

func (p *process) follow(stdout io.Reader) {
	defer close(p.exited)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var m message
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		p.mu.Lock()
		p.events[m.Event]++
		if m.WorkerID != "" {
			p.ids = append(p.ids, m.WorkerID)
		}
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, stdout) // so that it does not block, if a line was too long
	err := p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.err = time.Now(), err
}

func (p *process) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // it may have ended
}

// kill ends the process for good, noting that it was us.
func (p *process) kill() {
	p.mu.Lock()
	p.killed = time.Now()
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// stop asks the process to end.
func (p *process) stop() {
	p.mu.Lock()
	p.asked = true
	p.mu.Unlock()
	p.signal(syscall.SIGTERM)
}

func (p *process) wasAsked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) wasKilled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.killed.IsZero()
}

func (p *process) workerIDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ids)
}
