//go:build unix

package taskfile

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var errEnough = errors.New("enough")

// stopped runs e until it has written "ready", and ends its context then.
func stopped(t *testing.T, e *Executable) ran {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	r, err := run(ctx, e, claimed(), func(line string) {
		if line == "ready" {
			cancel(errEnough)
		}
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("error %v does not wrap the cause", err)
	}
	return r
}

// openEnd is a pipe in the file system whose other end the process holds open:
// gone waits until every process that has it is dead.
func openEnd(t *testing.T) (path string, gone func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "open-end")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		file, err := os.Open(path) // waits for the process
		if err == nil {
			_, err = io.Copy(io.Discard, file)
			err = errors.Join(err, file.Close())
		}
		closed <- err
	}()
	return path, func() {
		t.Helper()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("a process is still alive")
		}
	}
}

func TestStopAsksFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	path, gone := openEnd(t)
	e := script(t, "exec 3>"+path+`
		trap 'echo bye; exit 0' TERM; echo ready; sleep 3600 & wait $!; echo not reached`)
	if r := stopped(t, e); strings.Join(r.info, " ") != "ready bye" {
		t.Errorf("output %q", r.info)
	}
	gone()
}

func TestStopGivesChildrenTheGraceToo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	path, gone := openEnd(t)
	// The leader dies of SIGTERM at once; the child cleans up for longer.
	e := script(t, "exec 3>"+path+`
		sh -c 'trap "sleep 0.2; echo clean >&3; echo clean; exit" TERM; echo ready; sleep 3600 & wait' & wait`)
	if r := stopped(t, e); strings.Join(r.info, " ") != "ready clean" {
		t.Errorf("output %q", r.info)
	}
	gone()
}

func TestStopKillsInTheEnd(t *testing.T) {
	for name, text := range map[string]string{
		"the process": `trap '' TERM; echo ready; sleep 3600`,
		"a child":     `sh -c 'trap "" TERM; echo ready; sleep 3600' & wait`,
		"a quiet one": `sh -c 'trap "" TERM; echo ready; exec >/dev/null 2>&1 </dev/null; sleep 3600' & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			path, gone := openEnd(t)
			e := script(t, "exec 3>"+path+"\n"+text)
			e.grace = 30 * time.Millisecond
			stopped(t, e)
			gone()
		})
	}
}

func TestStopAtTheLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	path, gone := openEnd(t)
	e := script(t, "exec 3>"+path+"; sleep 3600")
	e.limit = 200 * time.Millisecond
	_, err := run(t.Context(), e, claimed(), nil)
	if err == nil || !strings.Contains(err.Error(), "200ms, which is the limit") {
		t.Errorf("error %v", err)
	}
	gone()
}

func TestStopBeforeTheStart(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	_, err := run(ctx, script(t, "touch "+marker), claimed(), nil)
	if !errors.Is(err, errEnough) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("the process ran")
	}
}

// killLater ends a process that a script has left behind, and wants it alive.
func killLater(t *testing.T, r ran) {
	t.Helper()
	for _, line := range r.info {
		if pid, err := strconv.Atoi(line); err == nil {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("the child in the background is gone: %v", err)
			}
			return
		}
	}
	t.Errorf("no process id in %q", r.info)
}

// TestChildInTheBackground: it holds all the pipes and is none of the job's
// business.
func TestChildInTheBackground(t *testing.T) {
	for code, want := range map[string]string{"0": "", "3": "Process exited with code 3"} {
		e := script(t, "exec 3<&0; sleep 3600 & echo $!; exit "+code)
		e.drain = 30 * time.Millisecond
		j := claimed()
		j.Payload = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
		r, err := run(t.Context(), e, j, nil)
		if errorText(err) != want {
			t.Errorf("error %v, want %q", err, want)
		}
		killLater(t, r)
	}
}

// TestOutputIsOverWhenRunReturns, also if a slow observer outlasts the drain.
func TestOutputIsOverWhenRunReturns(t *testing.T) {
	e := script(t, "echo one")
	e.drain = time.Millisecond
	over := false
	if _, err := run(t.Context(), e, claimed(), func(string) {
		time.Sleep(100 * time.Millisecond) // the slowness itself; nothing waits for it
		over = true
	}); err != nil {
		t.Error(err)
	}
	if !over {
		t.Error("output was still being called")
	}
}

// TestDrainEndsWithTheContext: the job is done, and nothing but a child in the
// background would still write.
func TestDrainEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	(&streams{read: make(chan struct{})}).drain(ctx, time.Hour)
}

// TestChildThatLeftTheGroup holds the pipes where no signal reaches it.
func TestChildThatLeftTheGroup(t *testing.T) {
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		t.Skip("there is no setsid here")
	}
	e := script(t, setsid+` sh -c 'echo $$; echo ready; exec sleep 3600' & wait`)
	killLater(t, stopped(t, e))
}
