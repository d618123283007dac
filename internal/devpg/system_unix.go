//go:build unix

package devpg

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the account that runs the server: our own, or for root another one.
type account struct {
	name  string
	other bool
	uid   uint32
	gid   uint32
}

// serverAccount is this process's own, or for root the first that exists of
// those that machines have.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(found.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("account %q: %w", name, err)
		}
		return account{name: name, other: true, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return account{}, errors.New("root cannot run PostgreSQL, and there is no account postgres or nobody to run it: " +
		"start this as another user, or set DATABASE_URL to a server that runs")
}

// run makes the command run under the account.
func (a account) run(cmd *exec.Cmd) {
	if !a.other {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own gives a new, empty folder to the account.
func (a account) own(dir string) error {
	if !a.other {
		return nil
	}
	return os.Chown(dir, int(a.uid), int(a.gid))
}

// hasSockets says that a folder can keep others away from a server's socket.
const hasSockets = true

// alone refuses a folder in which another account than ours could put something else
// in the place of the server's socket.
func (a account) alone(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	mode := info.Mode()
	switch owner, ok := info.Sys().(*syscall.Stat_t); {
	case ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("the folder %s belongs to another user: choose one of your own for the data", dir)
	case mode&0o022 != 0:
		return fmt.Errorf("other users can write to %s (mode %04o), where the data would be: chmod go-w it", dir, mode.Perm())
	}
	return nil
}

// reaches reports whether the account may go to a folder, as far as it exists.
func (a account) reaches(dir string) bool {
	if !a.other {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err == nil && !a.enters(info) {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

func (a account) enters(info os.FileInfo) bool {
	mode := info.Mode()
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		switch {
		case owner.Uid == a.uid:
			return mode&0o100 != 0
		case owner.Gid == a.gid:
			return mode&0o010 != 0
		}
	}
	return mode&0o001 != 0
}

// stopSignal is a way to end a server.
type stopSignal = syscall.Signal

const (
	signalFast      = syscall.SIGINT  // ends sessions, writes everything, stops
	signalImmediate = syscall.SIGQUIT // stops
)

func signalProcess(p *os.Process, how stopSignal) error { return p.Signal(how) }

func processExists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

func ownGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}

func lockFile(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// watchdog is a shell that ends the server when this process ends, in whatever
// way, and so closes its standard input. Data that was temporary goes when the
// server has put away the file that says that it runs; if that takes too long,
// sweep finds it.
type watchdog struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

const watchdogScript = `
read -r _
kill -INT "$1" 2>/dev/null
[ -n "$2" ] || exit
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
  [ -e "$2/pgdata/postmaster.pid" ] || exec rm -rf "$2"
  sleep 1
done`

// watch starts the watchdog of a server; temporary is the folder to remove, or "".
func watch(pid int, temporary string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "gworker-watchdog", strconv.Itoa(pid), temporary)
	cmd.Dir = "/"
	ownGroup(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &watchdog{cmd: cmd, stdin: stdin}, nil
}

// release ends the watchdog, not the server.
func (w *watchdog) release() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	_ = w.stdin.Close()
}
