//go:build unix

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/devpg"
)

//go:embed audit.sql
var auditSQL string

// cluster is the queue's database: a primary, and a standby that has every
// transaction before its commit is acknowledged. So a failover loses no
// acknowledged commit.
type cluster struct {
	base  string
	log   io.Writer
	clock *clock // nil: the system's
	small bool   // each server has a small file system of its own

	mu      sync.Mutex
	primary *server
	standby *server
	made    int
	mounted []string // the folders of servers that are file systems of their own
}

// now is the present primary.
func (c *cluster) now() *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primary
}

// startCluster makes the servers, and the queue in them. base is a folder that
// every account can reach.
func startCluster(ctx context.Context, base string, log io.Writer, clock *clock, small bool) (*cluster, error) {
	c := &cluster{base: base, log: log, clock: clock, small: small}
	if err := c.first(ctx); err != nil {
		return c, err
	}
	if err := c.primary.exec(ctx, auditSQL); err != nil {
		return c, err
	}
	return c, c.addStandby(ctx)
}

// first lets devpg find the programs and make the data.
func (c *cluster) first(ctx context.Context) error {
	place := filepath.Join(c.base, "server1")
	if err := c.mount(place); err != nil {
		return err
	}
	maker, err := devpg.Start(ctx, devpg.Options{DataDir: place, Fast: true, IgnoreEnvironment: true, Database: database})
	if err != nil {
		return err
	}
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: maker.URL(database)})
	if err == nil {
		err = client.Migrate(ctx)
		if err == nil {
			err = makeRole(ctx, maker.URL(database))
		}
		if err == nil {
			_, err = client.Grant(ctx, gworker.RightsWorker, role, gworker.GrantOptions{})
		}
		client.Close()
	}
	s := &server{name: "server1", log: c.log, clock: c.clock, data: filepath.Join(place, "pgdata")}
	if err == nil {
		err = s.programsOf(ctx, maker.URL(database))
	}
	if err := errors.Join(err, maker.Close(ctx)); err != nil {
		return err
	}
	if s.port, err = freePort(); err != nil {
		return err
	}
	if s.account, err = ownerOf(s.data); err != nil {
		return err
	}
	c.primary, c.made = s, 1
	return s.start(ctx)
}

// makeRole makes the role of the workers and the load.
func makeRole(ctx context.Context, url string) error {
	conn, err := connectTo(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "create role "+role+" login")
	return err
}

// addStandby copies the primary, waits until the copy follows, and makes commits
// wait for it from then on.
func (c *cluster) addStandby(ctx context.Context) error {
	primary := c.now()
	c.made++
	name := fmt.Sprintf("server%d", c.made)
	place := filepath.Join(c.base, name)
	s := &server{name: name, bin: primary.bin, account: primary.account, log: c.log, clock: c.clock, data: filepath.Join(place, "pgdata")}
	var err error
	if s.port, err = freePort(); err != nil {
		return err
	}
	if err := os.Mkdir(place, 0o755); err != nil {
		return err
	}
	if err := c.mount(place); err != nil {
		return err
	}
	if s.account != nil {
		if err := os.Chown(place, int(s.account.Uid), int(s.account.Gid)); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable application_name=%s", primary.port, name)
	copying := s.command("pg_basebackup", "-D", s.data, "-d", source, "-c", "fast", "-X", "stream", "--no-sync")
	if out, err := copying.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	// Settings of the primary do not apply to its successor.
	if err := os.Truncate(filepath.Join(s.data, "postgresql.auto.conf"), 0); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.data, "standby.signal"), nil, 0o644); err != nil {
		return err
	}
	if err := s.start(ctx, "primary_conninfo="+source); err != nil {
		return err
	}
	c.mu.Lock()
	c.standby = s
	c.mu.Unlock()
	if err := primary.exec(ctx, "alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"); err != nil {
		return err
	}
	return c.awaitStandby(ctx)
}

// awaitStandby waits until commits wait for the standby.
func (c *cluster) awaitStandby(ctx context.Context) error {
	return await(ctx, serverPatience, "the standby to follow", func() (bool, error) {
		n, err := value[int](ctx, c.now(), "select count(*) from pg_stat_replication where sync_state = 'sync'")
		return n > 0, err
	})
}

// promote makes the standby a primary. The old one is returned, and still runs.
func (c *cluster) promote(ctx context.Context) (old *server, err error) {
	ok, err := value[bool](ctx, c.standby, "select pg_promote(true, 30)")
	if err == nil && !ok {
		err = errors.New("it did not become one in time")
	}
	if err != nil {
		return nil, fmt.Errorf("promoting %s: %w", c.standby.name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, c.primary, c.standby = c.primary, c.standby, nil
	return old, nil
}

// replace makes a standby in place of a server that is no longer usable.
func (c *cluster) replace(ctx context.Context, old *server) error {
	if err := old.stop(syscall.SIGINT); err != nil {
		return err
	}
	if err := c.removePlace(old); err != nil {
		return err
	}
	return c.addStandby(ctx)
}

func (c *cluster) close() (err error) {
	for _, s := range []*server{c.standby, c.primary} {
		if s != nil {
			err = errors.Join(err, s.stop(syscall.SIGINT))
		}
	}
	for _, place := range c.mounted {
		err = errors.Join(err, unmount(place))
	}
	return err
}

// mount gives a server's folder a file system of its own, if there are to be small ones.
func (c *cluster) mount(place string) error {
	if !c.small {
		return nil
	}
	err := mount(place)
	if err == nil {
		c.mounted = append(c.mounted, place)
	}
	return err
}

// removePlace removes the folder of a server that has ended.
func (c *cluster) removePlace(s *server) error {
	place := filepath.Dir(s.data)
	if i := slices.Index(c.mounted, place); i >= 0 {
		if err := unmount(place); err != nil {
			return err
		}
		c.mounted = slices.Delete(c.mounted, i, i+1)
	}
	return os.RemoveAll(place)
}

// programsOf finds where a running server's programs are.
func (s *server) programsOf(ctx context.Context, url string) error {
	conn, err := connectTo(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, "select setting from pg_config where name = 'BINDIR'").Scan(&s.bin)
}

// ownerOf is the account to run a server under, nil if it is our own.
func ownerOf(dir string) (*syscall.Credential, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return nil, nil
	}
	return &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}, nil
}

// await polls the database, or whatever else cannot be listened to, until a
// condition holds. An error of the condition counts as not yet.
func await(ctx context.Context, patience time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := holds()
		if ok && err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(context.Cause(ctx), err))
		}
	}
}
