//go:build !unix

package taskfile

import (
	"os"
	"os/exec"
)

// Without process groups and signals, the process alone is ended, at once.

func ownGroup(*exec.Cmd) {}

// The only error of a kill is that the process has ended already.

func terminateGroup(leader *os.Process) { _ = leader.Kill() }

func killGroup(leader *os.Process) { _ = leader.Kill() }

func groupIsGone(*os.Process) bool { return true }

func endingSignal(*os.ProcessState) string { return "" }
