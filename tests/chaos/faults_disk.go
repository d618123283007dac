//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A full disk. Each server has a small file system of its own for that, which takes the
// rights to mount one.

// diskSize is enough for an hour of the load.
const diskSize = "1g"

// mount gives a server's folder a file system of its own.
func mount(place string) error {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+diskSize+",mode=0755", "gworker-chaos", place).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mounting a small file system: %w: %s", err, out)
	}
	return nil
}

func unmount(place string) error {
	out, err := exec.Command("umount", place).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unmounting %s: %w: %s", place, err, out)
	}
	return nil
}

// canMount says why this machine cannot mount a small file system.
func canMount(base string) error {
	place := filepath.Join(base, "mounted")
	if err := mount(place); err != nil {
		return errors.Join(err, os.Remove(place))
	}
	return errors.Join(unmount(place), os.Remove(place))
}

// disk fills the primary's disk: tables can no longer grow, or its log cannot either; then
// the server crashes and may not come up again by itself.
func (c *chaos) disk(ctx context.Context, d choice) error {
	hard, length := d.roll < 0.5, d.between(500*time.Millisecond, 4*time.Second)
	f := c.log.begin(d.number, d.kind, everybody, "no room on the disk for %s, its log filled as well: %t", length, hard)
	defer c.log.end(f)
	primary := c.cluster.now()
	ballast := filepath.Join(filepath.Dir(primary.data), "ballast")
	if err := fill(ballast); err != nil {
		return errors.Join(err, os.Remove(ballast))
	}
	if hard {
		for range 100 { // as much as may be left in segments that are there already
			err := primary.exec(ctx, "select pg_logical_emit_message(false, 'chaos', repeat('x', 16000000))")
			if err != nil {
				c.log.say("#%d the log cannot grow: %v", d.number, err)
				break
			}
		}
	}
	last(ctx, length)
	if err := os.Remove(ballast); err != nil {
		return err
	}
	err := await(ctx, serverPatience, "the server to have room again", func() (bool, error) {
		select {
		case <-primary.gone:
			c.log.say("#%d %s had ended and is started again", d.number, primary.name)
			if err := primary.stop(syscall.SIGQUIT); err != nil {
				return false, err
			}
			return false, primary.start(ctx)
		default:
		}
		return value[bool](ctx, primary, "select true")
	})
	if err != nil {
		return err
	}
	return c.cluster.awaitStandby(ctx)
}

// fill writes a file until there is no room left.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 1<<12; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}
