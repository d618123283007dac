package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An alarm waits like a job that waits for an answer from the network: its file
// becomes readable. Go's own timers are up to a millisecond late where nothing else
// happens, as its poller waits in whole milliseconds; that would be a fifth of a job
// of 5 ms, and no fault of the queue's.
type alarm struct{ file *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a timer: %w", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "timer")}, nil
}

// wait returns after d, or when ctx ends.
func (a *alarm) wait(ctx context.Context, d time.Duration) error {
	if err := a.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil)
	})
	if err == nil {
		err = setErr
	}
	if err != nil {
		return fmt.Errorf("setting a timer: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = a.file.SetReadDeadline(time.Unix(1, 0)) })()
	var times [8]byte
	if _, err := a.file.Read(times[:]); err != nil && ctx.Err() == nil {
		return fmt.Errorf("waiting for a timer: %w", err)
	}
	return context.Cause(ctx)
}

func (a *alarm) close() error { return a.file.Close() }
