//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A workerRuntime is whose worker a process is.
type workerRuntime string

const (
	gworkerRuntime workerRuntime = "gworker"
	nodeRuntime    workerRuntime = "node"
	rustRuntime    workerRuntime = "rust"
)

// foreign says that a worker is not gworker's. Its own mistakes are not judged here, only
// what it makes others do. Its recovery is off, so that only this program releases the
// locks that it leaves.
func (r workerRuntime) foreign() bool { return r != gworkerRuntime }

// slot is the place of a worker: its proxy stays, its processes come and go.
type slot struct {
	name    string
	runtime workerRuntime
	proxy   *proxy
	// busy is held by a fault while it affects this slot.
	busy sync.Mutex

	mu       sync.Mutex
	all      []*process // the last one is the present one
	stopping bool
	pause    time.Duration // before the next process is started
	started  chan struct{} // gets a value for each start
	over     chan struct{} // closed when no process will be started again
}

// now is the present process; it may have ended.
func (s *slot) now() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1]
}

func (s *slot) processes() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*process{}, s.all...)
}

// fleet keeps a process alive in each slot.
type fleet struct {
	slots   []*slot
	log     *journal
	logs    string
	oracle  string
	cluster *cluster
	node    *nodeInstallation // nil: no Node worker
	rust    *rustInstallation // nil: no Rust worker
}

// add makes a slot and starts its first process.
func (f *fleet) add(ctx context.Context, name string, of workerRuntime) error {
	p, err := newProxy(f.cluster.now().address())
	if err != nil {
		return err
	}
	s := &slot{name: name, runtime: of, proxy: p, started: make(chan struct{}, 1), over: make(chan struct{})}
	f.slots = append(f.slots, s)
	if err := f.start(s); err != nil {
		close(s.over)
		return err
	}
	go f.supervise(ctx, s)
	return nil
}

// start starts the next process, unless the fleet is stopping.
func (f *fleet) start(s *slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil
	}
	name := s.name + "." + itoa(len(s.all)+1)
	o := order{
		ConnectionString: databaseURL(s.proxy.port(), appPrefix+name), Oracle: f.oracle, Worker: name,
		Tasks: append(taskNames(), poisonTask, refusedTask), Concurrency: concurrency, PollInterval: int(pollInterval.Milliseconds()),
	}
	switch s.name {
	case localQueueSlot:
		o.LocalQueue = localQueueSize
	case lockedSlot, longHoldSlot:
		o.HoldTime = new(holdTime(s.name).Milliseconds())
	}
	var cmd *exec.Cmd
	switch s.runtime {
	case nodeRuntime:
		o.Package, o.Concurrency, o.Tasks = f.node.pack, foreignConcurrency, taskNames()
		cmd = f.node.command()
	case rustRuntime:
		o.Concurrency, o.Tasks = foreignConcurrency, taskNames()
		cmd = f.rust.command()
	default:
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		cmd = exec.Command(exe)
		cmd.Env = append(os.Environ(), processEnv+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us
	p, err := startProcess(name, cmd, o, f.logs)
	if err != nil {
		return err
	}
	s.all = append(s.all, p)
	select {
	case s.started <- struct{}{}:
	default:
	}
	return nil
}

// supervise starts a process again whenever it has ended.
func (f *fleet) supervise(ctx context.Context, s *slot) {
	defer close(s.over)
	for {
		p := s.now()
		<-p.exited
		s.mu.Lock()
		stopping, pause := s.stopping, s.pause
		s.mu.Unlock()
		if stopping {
			return
		}
		if !p.wasKilled() && !p.wasAsked() {
			pause = time.Second
			switch {
			case s.runtime.foreign():
				// Node's workers end when they lose their database, and Rust's of any error of it.
				f.log.say("%s ended by itself: %v", p.name, p.err)
			case f.log.revoked(p.ended) && f.deniedIn(p):
				f.log.say("%s ended, as it may not do its work: %v", p.name, p.err)
			default:
				f.log.breaks("a worker ends only when it is told to", "%s ended by itself: %v", p.name, p.err)
			}
		}
		if s.runtime.foreign() {
			f.freeForeignLocks(ctx, p)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if err := f.start(s); err != nil {
			f.log.breaks("the harness works", "%v", err)
			return
		}
	}
}

// deniedIn says that the last lines of a process's log complain of a missing right.
func (f *fleet) deniedIn(p *process) bool {
	text, err := os.ReadFile(filepath.Join(f.logs, p.name+".log"))
	if err != nil {
		return false
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Contains(lines[len(lines)-1], "permission denied") ||
		strings.Contains(lines[len(lines)-1], "is not permitted to log in")
}

// freeForeignLocks is what an operator does after a Node or Rust worker has died: without
// it, their jobs stay locked for four hours.
func (f *fleet) freeForeignLocks(ctx context.Context, p *process) {
	err := await(ctx, time.Minute, "freeing the locks of "+p.name, func() (bool, error) {
		_, err := value[string](ctx, f.cluster.now(),
			"select coalesce(graphile_worker.force_unlock_workers($1)::text, '')", p.workerIDs())
		return true, err
	})
	if err != nil && ctx.Err() == nil {
		f.log.breaks("the harness works", "%v", err)
	}
}

// switchTo points all proxies to another server.
func (f *fleet) switchTo(address string) {
	for _, s := range f.slots {
		s.proxy.switchTo(address)
	}
}

const stopPatience = 45 * time.Second

// stop ends all processes the way an operator would, and checks that they go.
func (f *fleet) stop() {
	var wait sync.WaitGroup
	for _, s := range f.slots {
		s.mu.Lock()
		s.stopping = true
		s.mu.Unlock()
		wait.Go(func() { f.stopOne(s) })
	}
	wait.Wait()
}

func (f *fleet) stopOne(s *slot) {
	p := s.now()
	if p.running() {
		p.signal(syscall.SIGTERM)
	}
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		if !s.runtime.foreign() {
			f.log.breaks("a worker ends after SIGTERM", "%s was still there after %s", p.name, stopPatience)
		}
		p.kill()
	}
	<-s.over
	if !s.runtime.foreign() && !p.wasKilled() && p.err != nil {
		f.log.breaks("a worker ends with status 0", "%s: %v", p.name, p.err)
	}
}

// close ends whatever is left, after a run that failed on its way.
func (f *fleet) close() {
	for _, s := range f.slots {
		s.mu.Lock()
		s.stopping = true
		s.mu.Unlock()
		for _, p := range s.processes() {
			if p.running() {
				p.kill()
			}
		}
		<-s.over
		s.proxy.close()
	}
}
