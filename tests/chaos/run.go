//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// chaos is one run.
type chaos struct {
	options   options
	log       *journal
	oracle    *oracle
	cluster   *cluster
	fleet     *fleet
	load      *load
	loadProxy *proxy
	figures   *figures
	base      string
	logs      string
	serverLog *os.File
}

// run does everything, and returns the verdict. An error means that there is
// none.
func run(ctx context.Context, o options, print func(string)) (v *verdict, err error) {
	c := &chaos{options: o, log: newJournal(print)}
	much := fmt.Sprintf("%d jobs a second", o.Rate)
	if o.Jobs > 0 {
		much = fmt.Sprintf("%d jobs", o.Jobs)
	}
	print(fmt.Sprintf("seed %d, %s, %d gworker and %d Rust processes, %s", o.Seed, o.Duration, o.Workers, o.Rust, much))
	defer func() {
		c.close()
		keep := o.Logs != "" || err != nil || v.failed()
		if keep && c.logs != "" {
			print("logs of all processes: " + c.logs)
		}
		err = errors.Join(err, c.remove(keep))
	}()
	if err := c.setUp(ctx); err != nil {
		return nil, fmt.Errorf("setting up: %w", err)
	}

	adding, stopAdding := context.WithCancel(ctx)
	var wait sync.WaitGroup
	enough := make(chan struct{}) // closes when a soak has added its jobs
	wait.Go(func() {
		if o.Jobs > 0 {
			c.soak(adding)
			close(enough)
			return
		}
		c.load.run(adding, o.Seed)
	})
	wait.Go(func() { c.figures.sample(adding, c) })
	c.breakThings(ctx, enough)
	stopAdding()
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := c.settle(ctx); err != nil {
		return nil, err
	}
	v, err = c.judge(ctx)
	if err != nil {
		return nil, fmt.Errorf("judging: %w", err)
	}
	v.print(print)
	return v, nil
}

func (c *chaos) setUp(ctx context.Context) (err error) {
	if c.base, err = os.MkdirTemp("", "gworker-chaos-*"); err != nil {
		return err
	}
	if err := os.Chmod(c.base, 0o755); err != nil { // the servers may run under another account
		return err
	}
	if c.logs = c.options.Logs; c.logs == "" {
		c.logs = filepath.Join(c.base, "logs")
	}
	if err := os.MkdirAll(c.logs, 0o755); err != nil {
		return err
	}
	if c.serverLog, err = os.Create(filepath.Join(c.logs, "servers.log")); err != nil {
		return err
	}
	if err := c.leaveOut(); err != nil {
		return err
	}
	clock, small := (*clock)(nil), slices.Contains(c.options.Faults, "disk")
	if slices.Contains(c.options.Faults, "clock") {
		if clock, err = findClock(c.base); err != nil {
			return err
		}
	}
	var rust *rustInstallation
	if c.options.Rust > 0 {
		if rust, err = findRust(c.base); err != nil {
			return err
		}
	}
	if c.oracle, err = startOracle(ctx); err != nil {
		return err
	}
	if c.cluster, err = startCluster(ctx, c.base, c.serverLog, clock, small); err != nil {
		return err
	}
	address := c.cluster.now().address()
	if c.loadProxy, err = newProxy(address); err != nil {
		return err
	}
	if c.load, err = newLoad(databaseURL(c.loadProxy.port(), loadApp), c.options.Rate); err != nil {
		return err
	}
	c.figures = newFigures()
	c.fleet = &fleet{log: c.log, logs: c.logs, oracle: c.oracle.url(), cluster: c.cluster, rust: rust}
	for i := range c.options.Workers {
		if err := c.fleet.add(ctx, "w"+itoa(i+1), gworkerRuntime); err != nil {
			return err
		}
	}
	if c.options.Node {
		if c.fleet.node, err = findNode(c.base); err != nil {
			c.log.say("no Node worker takes part: %v", err)
		} else if err := c.fleet.add(ctx, "node", nodeRuntime); err != nil {
			return err
		}
	}
	for i := range c.options.Rust {
		if err := c.fleet.add(ctx, "rust"+itoa(i+1), rustRuntime); err != nil {
			return err
		}
	}
	return nil
}

// leaveOut leaves out the kinds of faults for which the machine lacks something, and says
// so.
func (c *chaos) leaveOut() error {
	if len(c.options.Faults) == 0 {
		c.options.Faults = commonKinds()
	}
	c.options.Faults = slices.DeleteFunc(slices.Clone(c.options.Faults), func(name string) bool {
		var err error
		switch name {
		case "disk":
			err = canMount(c.base)
		case "clock":
			_, err = findClock(c.base)
		}
		if err != nil {
			c.log.say("no fault of kind %s: %v", name, err)
		}
		return err != nil
	})
	if len(c.options.Faults) == 0 {
		return errors.New("no kind of fault is left")
	}
	return nil
}

// close ends everything that setUp has started, as far as it came.
func (c *chaos) close() {
	if c.fleet != nil {
		c.fleet.close()
	}
	if c.load != nil {
		c.load.pool.Close()
	}
	if c.loadProxy != nil {
		c.loadProxy.close()
	}
	if c.cluster != nil {
		if err := c.cluster.close(); err != nil {
			c.log.say("%v", err)
		}
	}
	if c.oracle != nil {
		c.oracle.close()
	}
	if c.serverLog != nil {
		_ = c.serverLog.Close()
	}
}

// remove leaves nothing but the logs, and those only if they are wanted.
func (c *chaos) remove(keepLogs bool) error {
	if c.base == "" {
		return nil
	}
	if !keepLogs || c.options.Logs != "" {
		return os.RemoveAll(c.base)
	}
	entries, err := os.ReadDir(c.base)
	for _, e := range entries {
		if e.Name() != "logs" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(c.base, e.Name())))
		}
	}
	return err
}

// heal undoes what a fault may have left behind.
func (c *chaos) heal() {
	for _, s := range c.fleet.slots {
		s.proxy.heal()
		s.now().signal(syscall.SIGCONT)
	}
	c.loadProxy.heal()
}

func itoa(n int) string { return strconv.Itoa(n) }

// seconds prints a time as the log does.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }
