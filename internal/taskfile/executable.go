package taskfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gworker/gworker/internal/job"
)

const (
	// defaultLimit is how long a process may run; the Node worker has it too.
	defaultLimit = 4 * time.Hour
	// defaultGrace is the time from SIGTERM to SIGKILL.
	defaultGrace = 5 * time.Second
	// defaultDrain is how long output is still read after the process's own
	// end, from children that it left in the background.
	defaultDrain = 5 * time.Second
	// killedDrain is the same after a kill: what remains are children that left
	// the process group.
	killedDrain = time.Second
	// groupPoll is how often a stopped group is looked at; no system call waits
	// for processes that are not one's own children.
	groupPoll = 10 * time.Millisecond
)

// Executable runs a file as a process of its own, once for each job. It is safe
// for concurrent use.
type Executable struct {
	// Path is the file's absolute path.
	Path string
	// Task is the identifier of the task.
	Task string
	// Environment is what the process inherits.
	Environment Environment

	// Set by tests; zero means the defaults.
	limit, grace, drain time.Duration
}

// Run starts the process, gives it the job and waits for its end. The lines
// that it writes go to output, which is never called twice at once, nor after
// Run has returned.
//
// nil means that the process exited with status 0. Children that it left in the
// background do not change that: their output is read for some seconds more,
// and they are left alone.
//
// When ctx ends, or after 4 hours, the process and its group are stopped, and killed
// if they have not ended 5 s later, or when the worker waits no longer. The
// error wraps the context's cause then, whatever the exit status: a process
// that handles SIGTERM by a clean exit has not said that its work is done.
func (e *Executable) Run(ctx context.Context, j *job.Claimed, output func(line string, isError bool)) error {
	limit := cmp.Or(e.limit, defaultLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it ran for %s, which is the limit", limit))
	defer cancel()
	if ctx.Err() != nil {
		return fmt.Errorf("process was not started: %w", context.Cause(ctx))
	}
	cmd, streams, err := e.start(exec.Command(e.Path), j, output)
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without a first line that names its interpreter: execvp,
		// and so the Node worker, gives it to the shell.
		cmd, streams, err = e.start(exec.Command("/bin/sh", e.Path), j, output)
	}
	if err != nil {
		return err
	}
	streams.run()
	defer streams.close()

	var waitErr error
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		waitErr = cmd.Wait()
	}()
	select {
	case <-exited:
	case <-ctx.Done():
		if !isClosed(exited) { // what ended in time counts
			e.stop(cmd.Process, exited, job.Forced(ctx))
			// ctx is over, and what the stopped processes wrote is still wanted.
			streams.drain(context.WithoutCancel(ctx), killedDrain)
			return fmt.Errorf("process was stopped: %w", context.Cause(ctx))
		}
	}
	streams.drain(ctx, cmp.Or(e.drain, defaultDrain))
	return outcome(cmd, waitErr)
}

func (e *Executable) start(
	cmd *exec.Cmd, j *job.Claimed, output func(line string, isError bool),
) (*exec.Cmd, *streams, error) {
	cmd.Env = e.Environment.forJob(os.Environ(), e.Task, j)
	ownGroup(cmd)
	streams, err := connect(cmd, stdin(j), output)
	if err != nil {
		return nil, nil, fmt.Errorf("making the pipes for %s: %w", e.Path, err)
	}
	if err := cmd.Start(); err != nil {
		streams.abandon()
		return nil, nil, e.startError(err)
	}
	return cmd, streams, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// stop ends the process and its group, and returns when the process is reaped.
// All of the group has the time of grace, also if the process that leads it
// ends at once, as a shell does while the program that it started cleans up. forced
// ends it.
func (e *Executable) stop(process *os.Process, exited, forced <-chan struct{}) {
	terminateGroup(process)
	grace := time.NewTimer(cmp.Or(e.grace, defaultGrace))
	defer grace.Stop()
	look := time.NewTicker(groupPoll)
	defer look.Stop()
	leader := exited
	for {
		select {
		case <-leader:
			leader = nil
		case <-look.C:
			if leader == nil && groupIsGone(process) {
				return
			}
		case <-forced:
			killGroup(process)
			<-exited
			return
		case <-grace.C:
			killGroup(process)
			<-exited
			return
		}
	}
}

// outcome is the error of a process that ended by itself.
func outcome(cmd *exec.Cmd, waitErr error) error {
	var exit *exec.ExitError
	switch {
	case waitErr == nil:
		return nil
	case !errors.As(waitErr, &exit):
		return fmt.Errorf("waiting for %s: %w", cmd.Path, waitErr)
	}
	if signal := endingSignal(exit.ProcessState); signal != "" {
		//lint:ignore ST1005 it stands in the same place as the next
		return fmt.Errorf("Process was ended by signal %s", signal)
	}
	//lint:ignore ST1005 the Node worker's words, which people search for
	return fmt.Errorf("Process exited with code %d", exit.ExitCode())
}

// startError says what the system's error number hides.
func (e *Executable) startError(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		err = pathErr.Err // the path is named anyway
	}
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = ": the file is gone"
		if _, statErr := os.Stat(e.Path); statErr == nil {
			hint = ": the interpreter that its first line names, or its loader, does not exist here"
		}
	case errors.Is(err, fs.ErrPermission):
		hint = ": this user may not execute it or its interpreter, or its file system forbids it"
	}
	return fmt.Errorf("starting %s: %w%s", e.Path, err, hint)
}
