//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gworker/gworker/internal/testdb"
)

// messages is a logger whose lines a test waits for.
func messages() (*zap.Logger, func(t *testing.T, what string)) {
	lines := make(chan string, 100)
	core := zapcore.NewNopCore()
	logger := zap.New(core, zap.WrapCore(func(zapcore.Core) zapcore.Core {
		return zapcore.RegisterHooks(zapcore.NewCore(
			zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(discard{}), zap.DebugLevel,
		), func(e zapcore.Entry) error {
			lines <- e.Message
			return nil
		})
	}))
	return logger, func(t *testing.T, what string) {
		t.Helper()
		timeout := time.After(time.Minute)
		for {
			select {
			case line := <-lines:
				if strings.Contains(line, what) {
					return
				}
			case <-timeout:
				t.Fatalf("nothing was logged about %q", what)
			}
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestLaterSignalForcesAndAnEchoDoesNot(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	logger, logged := messages()
	var forced atomic.Int32
	ctx, release := untilSignal(t.Context(), logger, clock, func() { forced.Add(1) })
	stop := sync.OnceFunc(release)
	defer stop()
	send := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	send(syscall.SIGINT)
	<-ctx.Done()
	if cause := context.Cause(ctx); cause == nil || !strings.Contains(cause.Error(), "interrupt") {
		t.Errorf("the cause is %v", cause)
	}
	logged(t, "stopping")
	send(syscall.SIGTERM)
	logged(t, "echo")
	if forced.Load() != 0 {
		t.Error("an echo has forced the end")
	}
	mu.Lock()
	now = now.Add(2 * echoTime)
	mu.Unlock()
	send(syscall.SIGTERM)
	logged(t, "ending at once")
	stop()
	if n := forced.Load(); n != 1 {
		t.Errorf("forced %d times", n)
	}
}

// TestSignalEndsTheBinaryGracefully: the job that runs at that moment ends
// first.
func TestSignalEndsTheBinaryGracefully(t *testing.T) {
	database := testdb.Migrated(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"wait.sh": "#!/bin/sh\necho begun\nread -r line < '" + gate + "'\necho \"got $line\"\n"})
	worker(t, "", "add", "wait", "-c", database).want(t, 0)

	cmd, waitFor := startBinary(t, "run", "-c", database, "--tasks", dir)
	waitFor(`"begun"`)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor("stopping: letting running jobs finish")
	if err := os.WriteFile(gate, []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(`"got a line"`)
	waitFor("job completed")
	waitFor("worker stopped")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the binary ended with %v", err)
	}
}

func TestShutdownCutsJobsOffAsItsFlagsSay(t *testing.T) {
	database := testdb.Migrated(t)
	gate := filepath.Join(t.TempDir(), "gate") // that nobody opens
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := tasksDir(t, map[string]string{"wait.sh": "#!/bin/sh\necho begun\nread -r line < '" + gate + "'\n"})
	for name, timeout := range map[string]string{"at once": "0", "soon": "1ms"} {
		worker(t, "", "add", "wait", "-c", database, "--key", "k").want(t, 0)
		cmd, waitFor := startBinary(t, "run", "-c", database, "--tasks", dir,
			"--shutdown-abort-timeout", timeout, "--shutdown-return-delay", "2h")
		waitFor(`"begun"`)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		waitFor("worker stopped")
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: the binary ended with %v", name, err)
		}
		var waits bool
		var attempts int
		err := testdb.Pool(t, database).QueryRow(t.Context(), `select attempts, run_at between now() + interval '1 h' and now() + interval '2 h'
			from graphile_worker.jobs`).Scan(&attempts, &waits)
		if err != nil || attempts != 0 || !waits {
			t.Errorf("%s: %d attempts, waits for 2 h: %v (%v)", name, attempts, waits, err)
		}
	}
	for _, flag := range []string{"--shutdown-abort-timeout", "--shutdown-return-delay"} {
		r := worker(t, "", "run", "--once", "-c", database, "--tasks", dir, flag, "-1s")
		r.want(t, statusUsage, flag+" is -1s")
	}
}

// startBinary starts this binary as a process of its own. waitFor reads its log
// up to a line that has the text.
func startBinary(t *testing.T, args ...string) (cmd *exec.Cmd, waitFor func(what string)) {
	t.Helper()
	return startBinaryAs(t, "1", args...)
}

func startBinaryAs(t *testing.T, as string, args ...string) (cmd *exec.Cmd, waitFor func(what string)) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asWorker+"="+as)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Its end ends a test that waits for a line in vain.
	tooLong := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		tooLong.Stop()
		_ = cmd.Process.Kill()
	})
	lines := bufio.NewScanner(stderr)
	var seen []string
	return cmd, func(what string) {
		t.Helper()
		for lines.Scan() {
			seen = append(seen, lines.Text())
			if strings.Contains(lines.Text(), what) {
				return
			}
		}
		t.Fatalf("the worker ended without %q:\n%s", what, strings.Join(seen, "\n"))
	}
}

// TestSecondSignalKillsProcesses: those of a task that does not heed SIGTERM, and
// all that they have started, are gone when the binary is.
func TestSecondSignalKillsProcesses(t *testing.T) {
	database := testdb.Migrated(t)
	stillOpen := filepath.Join(t.TempDir(), "stillOpen")
	if err := syscall.Mkfifo(stillOpen, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		file, err := os.Open(stillOpen) // waits for the process
		if err == nil {
			_, err = io.Copy(io.Discard, file) // until all that hold it open are dead
			_ = file.Close()
		}
		gone <- err
	}()
	dir := tasksDir(t, map[string]string{
		"stay.sh": "#!/bin/sh\nexec 3>'" + stillOpen + "'\ntrap '' TERM\nsh -c 'sleep 3600; exit' &\necho begun\nwhile :; do sleep 3600; done\n",
	})
	worker(t, "", "add", "stay", "-c", database).want(t, 0)
	cmd, waitFor := startBinary(t, "run", "-c", database, "--tasks", dir, "--shutdown-abort-timeout", "1h")
	waitFor(`"begun"`)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor("stopping")
	time.Sleep(echoTime + 100*time.Millisecond)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor("worker stopped")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the binary ended with %v", err)
	}
	select {
	case err := <-gone:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a process of the task is still alive")
	}
	var attempts int
	err := testdb.Pool(t, database).QueryRow(t.Context(), "select attempts from graphile_worker.jobs where locked_at is null").Scan(&attempts)
	if err != nil || attempts != 0 {
		t.Errorf("the job has %d attempts (%v)", attempts, err)
	}
}

// TestLostLogReader: jobs go on after the reader of the log has gone.
func TestLostLogReader(t *testing.T) {
	database := testdb.Migrated(t)
	dir := tasksDir(t, map[string]string{"say.sh": "#!/bin/sh\necho something\n"})
	cmd := exec.Command(os.Args[0], "run", "-c", database, "--tasks", dir)
	cmd.Env = append(os.Environ(), asWorker+"=1", "GWORKER_NOTHING_A=1", "GWORKER_NOTHING_B=1") // lines from the start
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	pool := testdb.Pool(t, database)
	for range 3 {
		worker(t, "", "add", "say", "-c", database).want(t, 0)
		for patient := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			var left int
			if err := pool.QueryRow(t.Context(), "select count(*) from graphile_worker.jobs").Scan(&left); err != nil {
				t.Fatal(err)
			}
			if left == 0 {
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("the binary ended with %v", err)
			default:
			}
			if time.Now().After(patient) {
				t.Fatal("the job does not run")
			}
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the binary ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the binary does not end")
	}
}
