//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Process 1 of a container inherits orphans: processes whose parents have ended, which tasks
// may leave behind. They stay in the process table until they are reaped. A worker waits for
// particular processes and cannot reap arbitrary ones, so as process 1 this program runs
// itself again as a child, and only reaps processes and forwards signals.

// isInit reports whether this process has to reap orphans.
func isInit() bool { return os.Getpid() == 1 }

// supervise runs this program with the same arguments as a child, and returns its exit
// status. It reaps every process that ends meanwhile.
func supervise(env []string) int {
	program, err := os.Executable()
	if err == nil {
		var child int
		signals := make(chan os.Signal, 16)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
		child, err = syscall.ForkExec(program, os.Args, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
		if err == nil {
			go func() {
				for s := range signals {
					_ = syscall.Kill(child, s.(syscall.Signal)) // it may have ended just now
				}
			}()
			return collect(child)
		}
	}
	fmt.Fprintf(os.Stderr, "worker: as process 1 it has to start itself once more, to collect orphans, and cannot: %v: "+
		"run it under an init, as docker run --init does\n", err)
	return statusFailure
}

// collect waits for children until one of them ends, and returns its exit status.
func collect(child int) int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return statusFailure // the child is gone, and was reaped elsewhere
		case pid != child:
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}
