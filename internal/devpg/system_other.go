//go:build !unix

package devpg

import (
	"os"
	"os/exec"
)

// Elsewhere, which is Windows, there are no accounts to change to and no
// watchdog: a server whose process was killed is found again by the next run.

type account struct{ name string }

func serverAccount() (account, error) { return account{}, nil }
func (account) run(*exec.Cmd)         {}
func (account) own(string) error      { return nil }
func (account) reaches(string) bool   { return true }

const hasSockets = false

func (account) alone(string) error { return nil }

type stopSignal int

const (
	signalFast stopSignal = iota
	signalImmediate
)

// signalProcess has one way only: PostgreSQL recovers from it.
func signalProcess(p *os.Process, _ stopSignal) error { return p.Kill() }

func processExists(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	return p.Release() == nil
}

func ownGroup(*exec.Cmd) {}

func lockFile(*os.File) error { return nil }

type watchdog struct{}

func watch(int, string) (*watchdog, error) { return &watchdog{}, nil }
func (*watchdog) release()                 {}
