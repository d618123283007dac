package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/testdb"
)

// asInit makes this process one that orphans become the children of, as process 1 is,
// and runs the binary under it.
func asInit() int {
	const childSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, childSubreaper, 1, 0); errno != 0 {
		panic(errno)
	}
	if err := os.Setenv(asWorker, "1"); err != nil {
		panic(err)
	}
	return supervise(os.Environ())
}

// An orphan of a task's is collected when it ends, signals reach the worker, and its
// exit status is that of the whole.
func TestOrphansAreCollected(t *testing.T) {
	database := testdb.Migrated(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	dir := tasksDir(t, map[string]string{
		"leave.sh": "#!/bin/sh\n(sh -c 'echo $$ > " + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; exec sleep 0.1' >/dev/null 2>&1 </dev/null &)\necho left\n",
	})
	worker(t, "", "add", "leave", "-c", database).want(t, 0)
	cmd, waitFor := startBinaryAs(t, "init", "run", "-c", database, "--tasks", dir)
	waitFor("job completed")
	var pid string
	for patient := time.Now().Add(time.Minute); pid == ""; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(pidFile)
		if err != nil && (!errors.Is(err, os.ErrNotExist) || time.Now().After(patient)) {
			t.Fatal(err)
		}
		pid = strings.TrimSpace(string(text))
	}
	for patient := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(patient) {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			t.Fatalf("the orphan is still there: %s", stat)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor("worker stopped")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the binary ended with %v", err)
	}
	failing, _ := startBinaryAs(t, "init", "run", "--no-such-flag")
	if err := failing.Wait(); err == nil || failing.ProcessState.ExitCode() != statusUsage {
		t.Errorf("the binary ended with %v", err)
	}
}
