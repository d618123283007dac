package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gworker/gworker/internal/wait"
)

const (
	temporaryPrefix = "gworker-pg-"
	lockName        = "lock"
	// lockPoll is how often a lock that another process holds is tried again.
	lockPoll = 50 * time.Millisecond
)

// folder is one that devpg has made, with a lock that ends with its process.
type folder struct {
	path string
	held *os.File
}

// keptFolder makes a folder if need be, which the account must be able to reach.
func keptFolder(path string, a account) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(path, "PG_VERSION")); err == nil {
		return nil, fmt.Errorf("%s is the data of another PostgreSQL: choose another folder", path)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for the data: %w", err)
	}
	if !a.reaches(path) {
		return nil, fmt.Errorf("root cannot run PostgreSQL, and the account %q, which runs it, cannot reach %s: "+
			"choose a folder which everybody can reach, such as /var/cache/gworker/dev", a.name, path)
	}
	return &folder{path: path}, nil
}

// temporaryFolder makes a folder and holds its lock, so that sweep knows that
// it is in use. A fast one is in memory if possible.
func temporaryFolder(a account, fast bool) (*folder, error) {
	base, ok := "", false
	if fast {
		base, ok = memoryBase(a)
	}
	if !ok {
		var err error
		if base, err = temporaryBase(a); err != nil {
			return nil, err
		}
	}
	// Its final name comes with the lock: sweep must not see it before.
	made, err := os.MkdirTemp(base, "gworker-new-*")
	if err != nil {
		return nil, fmt.Errorf("making a temporary folder: %w", err)
	}
	f := &folder{path: filepath.Join(base, temporaryPrefix+filepath.Base(made)[len("gworker-new-"):])}
	err = errors.Join(os.Chmod(made, 0o755), (&folder{path: made}).tryLock(&f.held))
	if err == nil {
		err = os.Rename(made, f.path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a temporary folder: %w", err), os.RemoveAll(made))
	}
	return f, nil
}

// temporaryBase is the first place for temporary files that the account reaches.
func temporaryBase(a account) (string, error) {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() && a.reaches(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no folder for temporary files that the account %q can reach", a.name)
}

// sweep removes what processes that were killed have left behind. The server of
// such a process is told to end by its watchdog.
func sweep() {
	for _, base := range []string{os.TempDir(), "/tmp", "/var/tmp", memoryDir} {
		if base == "" {
			continue
		}
		found, _ := filepath.Glob(filepath.Join(base, temporaryPrefix+"*"))
		for _, path := range found {
			f := &folder{path: path}
			if err := f.tryLock(&f.held); err != nil {
				continue // in use, or not ours to remove
			}
			if _, err := os.Stat(filepath.Join(path, "pgdata", "postmaster.pid")); err == nil && f.serverRuns() {
				f.unlock()
				continue // it is still stopping
			}
			_ = f.remove() // another process may be at it too; what stays is swept the next time
		}
	}
}

func (f *folder) serverRuns() bool {
	c := cluster{dir: filepath.Join(f.path, "pgdata")}
	pid, _ := c.postmaster()
	return pid != 0 && processExists(pid)
}

// lock waits for the folder's lock.
func (f *folder) lock(ctx context.Context) error {
	for {
		err := f.tryLock(&f.held)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errLocked) {
			return fmt.Errorf("locking %s: %w", f.path, err)
		}
		if err := wait.Sleep(ctx, lockPoll); err != nil {
			return fmt.Errorf("waiting for another process that prepares %s: %w", f.path, err)
		}
	}
}

var errLocked = errors.New("locked by another process")

func (f *folder) tryLock(held **os.File) error {
	file, err := os.OpenFile(filepath.Join(f.path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := lockFile(file); err != nil {
		return errors.Join(err, file.Close())
	}
	*held = file
	return nil
}

// unlock lets others in. Closing a file cannot lose anything here.
func (f *folder) unlock() {
	if f.held != nil {
		_ = f.held.Close()
		f.held = nil
	}
}

func (f *folder) remove() error {
	err := os.RemoveAll(f.path)
	f.unlock()
	return err
}
