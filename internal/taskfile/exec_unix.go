//go:build unix

package taskfile

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup makes the process lead a group of its own: it can be ended together
// with what it starts, and the terminal's Ctrl-C, which is meant for the
// worker, does not reach it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// The only error of the signals below is that nobody is left to get them.

func terminateGroup(leader *os.Process) { _ = syscall.Kill(-leader.Pid, syscall.SIGTERM) }

func killGroup(leader *os.Process) { _ = syscall.Kill(-leader.Pid, syscall.SIGKILL) }

// groupIsGone reports whether the group has no process left. As long as it
// has one, the system does not give its number to another. A dead process that
// init has not yet reaped counts as one, so a stop may last for the whole grace
// where init is slow, or missing as in containers whose process 1 is not the binary.
func groupIsGone(leader *os.Process) bool {
	return errors.Is(syscall.Kill(-leader.Pid, 0), syscall.ESRCH)
}

// endingSignal names the signal that ended a process, or "".
func endingSignal(state *os.ProcessState) string {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return ""
	}
	return status.Signal().String()
}
