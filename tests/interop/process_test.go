package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// deadline bounds every wait; it is far beyond what any of them takes, and only
// makes a hanging process a failure.
const deadline = 2 * time.Minute

// An order is what a process reads from its stdin, one line of JSON.
type order struct {
	ConnectionString string   `json:"connectionString"`
	Package          string   `json:"package,omitempty"` // Node only
	Worker           string   `json:"worker,omitempty"`
	Tasks            []string `json:"tasks,omitempty"`
	BatchTasks       []string `json:"batchTasks,omitempty"`
	Concurrency      int      `json:"concurrency,omitempty"`
	Once             bool     `json:"once,omitempty"`
	ForbiddenFlags   []string `json:"forbiddenFlags,omitempty"`
	LocalQueue       int      `json:"localQueue,omitempty"` // its size; Node from 0.17
	Calls            []call   `json:"calls,omitempty"`
	Crontab          string   `json:"crontab,omitempty"`

	Schema        string         `json:"schema,omitempty"`        // Node's worker.mjs takes it, too
	AcceptedFlags []string       `json:"acceptedFlags,omitempty"` // Rust and gworker only
	BatchMs       *int           `json:"batchMs,omitempty"`       // Rust's and Node's batchers; nil means without
	HoldMs        *int           `json:"holdMs,omitempty"`        // gworker's HoldTime; nil means the default
	PollMs        int            `json:"pollMs,omitempty"`        // Rust only
	GraceMs       int            `json:"graceMs,omitempty"`       // Rust only
	Recovery      *orderRecovery `json:"recovery,omitempty"`      // Rust's is off without it
	RecoveryOff   bool           `json:"recoveryOff,omitempty"`   // gworker only, whose is on

	Crontabs   []string    `json:"crontabs,omitempty"` // cron.mjs only
	Times      []time.Time `json:"times,omitempty"`
	Administer []adminCall `json:"administer,omitempty"`
}

// orderRecovery are the settings of Rust's or our recovery; zero means the default.
type orderRecovery struct {
	HeartbeatMs int `json:"heartbeatMs,omitempty"`
	SweepMs     int `json:"sweepMs,omitempty"`
	ThresholdMs int `json:"thresholdMs,omitempty"`
	DelayMs     int `json:"delayMs,omitempty"`
}

// A report is a line of a process's stdout. "exited" is the test's own: the
// last event of each process.
type report struct {
	Event string        `json:"event"`
	Job   int64         `json:"job,omitempty"`
	IDs   []int64       `json:"ids,omitempty"`
	Items []readCrontab `json:"items,omitempty"`
	Error string        `json:"error,omitempty"`
	From  *process      `json:"-"`

	Worker    string   `json:"worker,omitempty"`    // Rust: the id of the worker that runs the job
	Workers   []string `json:"workers,omitempty"`   // Rust's sweep: whom it found dead
	Recovered int      `json:"recovered,omitempty"` // and how many jobs it recovered
}

// A journal gathers the events of one or more processes.
type journal struct {
	mu      sync.Mutex
	events  []report
	changed chan struct{}
}

func newJournal() *journal { return &journal{changed: make(chan struct{}, 1)} }

func (j *journal) add(e report) {
	j.mu.Lock()
	j.events = append(j.events, e)
	j.mu.Unlock()
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

// await returns once count events of the kind have come. A process that ends
// on the way fails the test.
func (j *journal) await(t *testing.T, kind string, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	read, found := 0, 0
	for {
		j.mu.Lock()
		fresh := j.events[read:]
		read = len(j.events)
		j.mu.Unlock()
		for _, e := range fresh {
			switch e.Event {
			case kind:
				found++
			case "exited":
				t.Fatalf("%s ended before %d jobs were %s (%d were): %v\n%s",
					e.From.name, count, kind, found, e.From.err, e.From.stderr)
			}
		}
		if found >= count {
			return
		}
		select {
		case <-j.changed:
		case <-ctx.Done():
			t.Fatalf("waiting for %d jobs %s: got %d: %v", count, kind, found, context.Cause(ctx))
		}
	}
}

// A process is a worker or client that the test starts.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr *output
	exited chan struct{}
	err    error // what Wait returned, once exited is closed
}

// start starts a command, gives it its order and reads its events into the
// journal. The command is stopped with the test if it runs until then.
func start(t *testing.T, name string, cmd *exec.Cmd, o order, to *journal) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, stderr: &output{}, exited: make(chan struct{})}
	cmd.Stderr = p.stderr
	cmd.WaitDelay = 10 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p.stdin = stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		defer close(p.exited)
		unread := readEvents(p, stdout, to)
		p.err = cmd.Wait()
		if p.err == nil {
			p.err = unread
		}
		to.add(report{Event: "exited", From: p})
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		<-p.exited
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, p.stderr)
		}
	})
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatalf("ordering %s: %v", name, err)
	}
	if _, err := stdin.Write(append(line, '\n')); err != nil {
		t.Fatalf("ordering %s: %v", name, err)
	}
	return p
}

func readEvents(p *process, stdout io.Reader, to *journal) error {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e := report{From: p}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			// Read on, so that the process does not block on a full pipe.
			_, _ = io.Copy(io.Discard, stdout)
			return fmt.Errorf("not an event on stdout: %q", lines.Text())
		}
		to.add(e)
	}
	return lines.Err()
}

// kill ends the process as a crash does, and waits until it is gone.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatalf("killing %s: %v", p.name, err)
	}
	_ = p.end(t)
}

// stop asks the process to end gracefully and waits for it.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.stdin.Close(); err != nil {
		t.Fatalf("stopping %s: %v", p.name, err)
	}
	p.wait(t)
}

// wait waits for the process to end by itself, successfully.
func (p *process) wait(t *testing.T) {
	t.Helper()
	if err := p.end(t); err != nil {
		t.Fatalf("%s: %v\n%s", p.name, err, p.stderr)
	}
}

// end waits for the process to end by itself, in whichever way.
func (p *process) end(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	select {
	case <-p.exited:
		return p.err
	case <-ctx.Done():
		t.Fatalf("waiting for %s to end: %v\n%s", p.name, context.Cause(ctx), p.stderr)
		return nil
	}
}

// output keeps what a process wrote for people, the last of it if that is much.
type output struct {
	mu   sync.Mutex
	text []byte
}

const outputKept = 32 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if extra := len(o.text) - outputKept; extra > 0 {
		o.text = append(o.text[:0], o.text[extra:]...)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(string(bytes.ToValidUTF8(o.text, []byte("?"))))
}
