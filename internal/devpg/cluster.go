package devpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/wait"
)

const superuser = "postgres"

// portName is the file next to the cluster that remembers its port.
const portName = "port"

// cluster is a data directory.
type cluster struct {
	dir      string
	account  account
	fast     bool
	programs programs
	// temporary says that the folder around dir goes with the process.
	temporary bool
}

// prepare finds the programs, and makes the cluster if it is missing.
func (c *cluster) prepare(ctx context.Context, given string, progress func(string)) error {
	major, err := c.major()
	if err != nil {
		return err
	}
	if c.programs, err = choose(ctx, given, major, c.account, progress); err != nil {
		return err
	}
	if major != 0 {
		return nil
	}
	progress(fmt.Sprintf("making a PostgreSQL %s cluster in %s", c.programs.version, filepath.Dir(c.dir)))
	return c.init(ctx)
}

// major is the version that made the cluster, 0 if there is none.
func (c *cluster) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for a cluster: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s holds no version: the cluster is damaged", filepath.Join(c.dir, "PG_VERSION"))
	}
	return n, nil
}

// init makes the cluster under another name first: whoever finds it finds it
// whole.
func (c *cluster) init(ctx context.Context) error {
	made := c.dir + ".new"
	if err := os.RemoveAll(made); err != nil {
		return fmt.Errorf("removing an unfinished cluster: %w", err)
	}
	if err := os.Mkdir(made, 0o700); err != nil {
		return fmt.Errorf("making the cluster's folder: %w", err)
	}
	if err := c.account.own(made); err != nil {
		return fmt.Errorf("giving the cluster's folder to %q: %w", c.account.name, err)
	}
	args := []string{"-D", made, "-U", superuser, "--auth=trust", "--encoding=UTF8", "--locale=C"}
	if c.fast {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, c.programs.path("initdb"), args...)
	cmd.Dir = filepath.Dir(c.dir) // the account may not be allowed where we are
	cmd.Env = environment()
	c.account.run(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(made, c.dir); err != nil {
		return fmt.Errorf("naming the cluster: %w", err)
	}
	return nil
}

// environment keeps the user's settings for clients away from the server, and
// its messages in English, since one of them says that it is ready.
func environment() []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "LC_") && name != "LANG" && name != "LANGUAGE" {
			env = append(env, entry)
		}
	}
	return append(env, "LC_ALL=C")
}

// postmaster reads the server's process and address from its lock file; zeros if
// there is none.
func (c *cluster) postmaster() (pid int, at address) {
	text, err := os.ReadFile(filepath.Join(c.dir, "postmaster.pid"))
	if err != nil {
		return 0, address{}
	}
	lines := strings.Split(string(text), "\n")
	pid, _ = strconv.Atoi(strings.TrimSpace(lines[0]))
	if len(lines) > 5 && (lines[4] != "" || lines[5] != "") { // socket folder, host
		at.port, _ = strconv.Atoi(strings.TrimSpace(lines[3]))
		at.socket = lines[4]
	}
	return pid, at
}

// running is where a server listens that runs on this cluster, with port 0 if none
// does. One that is just stopping, since its process was killed, is waited for.
func (c *cluster) running(ctx context.Context) address {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		pid, at := c.postmaster()
		if pid == 0 || !processExists(pid) {
			return address{}
		}
		if at.port != 0 && c.answers(ctx, at) {
			return at
		}
		if wait.Sleep(ctx, lockPoll) != nil {
			return address{} // PostgreSQL itself will say that it cannot have the cluster
		}
	}
}

// answers reports whether the server at an address is that of this cluster.
func (c *cluster) answers(ctx context.Context, at address) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, at.url("postgres"))
	if err != nil {
		return false
	}
	defer conn.Close(ctx)
	var dir string
	if err := conn.QueryRow(ctx, "show data_directory").Scan(&dir); err != nil {
		return false
	}
	theirs, err1 := filepath.EvalSymlinks(dir)
	ours, err2 := filepath.EvalSymlinks(c.dir)
	return err1 == nil && err2 == nil && theirs == ours
}

// lastPort is the port that the cluster had, 0 if that is not known.
func (c *cluster) lastPort() int {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(c.dir), portName))
	if err != nil {
		return 0
	}
	port, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return port
}

// rememberPort keeps the connection string the same in the next run. It is a
// convenience: without it the next run has another port.
func (c *cluster) rememberPort(port int) {
	_ = os.WriteFile(filepath.Join(filepath.Dir(c.dir), portName), []byte(strconv.Itoa(port)+"\n"), 0o644)
}
