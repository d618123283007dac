//go:build unix

package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

// holderEnv makes this test program a worker process on that database, which holds
// its jobs for as long as holdTimeEnv says.
const holderEnv, holdTimeEnv = "GWORKER_TEST_HOLDER", "GWORKER_TEST_HOLD_TIME"

func init() {
	if url := os.Getenv(holderEnv); url != "" {
		fmt.Println("ended:", runHolder(url))
		os.Exit(1)
	}
}

// runHolder runs a job without a payload at once, and others until their context
// ends. It tells of that on its standard output, and whether it holds the former.
func runHolder(url string) error {
	hold, err := time.ParseDuration(os.Getenv(holdTimeEnv))
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		return err
	}
	defer pool.Close()
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL: url, HoldTime: &hold, PollInterval: time.Hour, // a claim of a poll locks
		Recovery: gworker.RecoveryConfig{Disabled: true},
		Tasks: []gworker.Task{gworker.NewTask("x", func(ctx context.Context, job *gworker.Job[string]) error {
			if job.Payload == "" {
				var locked bool
				err := pool.QueryRow(ctx, "select locked_at is not null from graphile_worker._private_jobs where id = $1", job.ID).Scan(&locked)
				fmt.Println(map[bool]string{true: "locked", false: "held"}[locked])
				return err
			}
			fmt.Println("started")
			<-ctx.Done()
			if errors.Is(context.Cause(ctx), gworker.ErrJobLost) {
				fmt.Println("lost")
			}
			return ctx.Err()
		})},
	})
	if err != nil {
		return err
	}
	return worker.Run(context.Background())
}

// holder is such a process, and the database that it works on.
type holder struct {
	pool  *pgxpool.Pool
	job   *gworker.JobRow // the one that it holds
	cmd   *osexec.Cmd
	lines *bufio.Scanner
}

// startHolder returns a process that runs a job which it holds.
func startHolder(t *testing.T, hold time.Duration) *holder {
	t.Helper()
	url := testdb.Migrated(t)
	h := &holder{pool: testdb.Pool(t, url), cmd: osexec.Command(os.Args[0])}
	client := newClient(t, h.pool)
	h.cmd.Env = append(os.Environ(), holderEnv+"="+url, holdTimeEnv+"="+hold.String())
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kill)
	h.lines = bufio.NewScanner(out)
	// The first job of a task is locked, and so are all before there is a connection to hold.
	for deadline, held := time.Now().Add(patience), false; !held; {
		if time.Now().After(deadline) {
			t.Fatal("the process does not hold jobs")
		}
		add(t, client, gworker.JobSpec{Task: "x", Payload: ""})
		if !h.lines.Scan() {
			t.Fatalf("the process has ended: %v", h.lines.Err())
		}
		held = h.lines.Text() == "held"
	}
	for deadline := time.Now().Add(patience); jobCount(t, h.pool) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the process does not work")
		}
	}
	h.job = add(t, client, gworker.JobSpec{Task: "x", Payload: "long", Queue: "q"})
	h.says(t, "started")
	return h
}

func (h *holder) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

func (h *holder) says(t *testing.T, want string) {
	t.Helper()
	if !h.lines.Scan() || h.lines.Text() != want {
		t.Fatalf("the process says %q (%v), want %q", h.lines.Text(), h.lines.Err(), want)
	}
}

// locked reports whether the job's lock is written.
func (h *holder) locked(t *testing.T) bool { return testworker.IsLocked(t, h.pool, h.job.ID) }

// takeOver runs the job here, where nothing is swept. It was nobody's attempt.
func (h *holder) takeOver(t *testing.T) {
	t.Helper()
	w := start(t, gworker.Config{
		Pool: h.pool, PollInterval: 20 * time.Millisecond, Recovery: gworker.RecoveryConfig{Disabled: true},
		Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)},
	})
	done := waitFor[event.JobCompleted](t, w.Events, nil)
	if done.Job.ID != h.job.ID || done.Job.Attempts != 1 || done.Job.LastError != "" {
		t.Errorf("completed %+v", done.Job)
	}
}

// TestHeldJobOfAKilledProcessIsFreeAtOnce: before that it is nobody's, and then no
// sweep is needed.
func TestHeldJobOfAKilledProcessIsFreeAtOnce(t *testing.T) {
	h := startHolder(t, 10*time.Second)
	runOnce(t, gworker.Config{Pool: h.pool, Tasks: []gworker.Task{gworker.NewRawTask("x", nothing)}})
	if jobCount(t, h.pool) != 1 || h.locked(t) {
		t.Fatalf("%d jobs, locked: %t", jobCount(t, h.pool), h.locked(t))
	}
	h.kill()
	h.takeOver(t)
}

// TestHeldJobOfAStoppedProcessIsFreeAfterAWhile: the server ends the transaction,
// and the process finds out when it goes on.
func TestHeldJobOfAStoppedProcessIsFreeAfterAWhile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	h := startHolder(t, time.Second)
	for {
		if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if !h.locked(t) {
			break
		}
		h.kill() // stopped too late
		h = startHolder(t, time.Second)
	}
	h.takeOver(t)
	if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.says(t, "lost")
}
