package scheduler_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
)

// lateConn holds back what the server sends while the gate is closed, which the next
// held claim closes behind itself once it is armed.
type lateConn struct {
	net.Conn
	gate  *sync.RWMutex
	armed *atomic.Bool
}

func (c lateConn) Write(b []byte) (int, error) {
	// The idle time-out of its transaction, with a hold time of an hour.
	if bytes.Contains(b, []byte("3605000")) && c.armed.CompareAndSwap(true, false) {
		c.gate.Lock()
	}
	return c.Conn.Write(b)
}

func (c lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.RLock()
	defer c.gate.RUnlock()
	return n, err
}

// awaitHeld waits until there are open transactions, or none.
func (f *fixture) awaitHeld(t *testing.T, held bool) {
	t.Helper()
	for deadline, n := time.Now().Add(patience), -1; n < 0 || held != (n > 0); {
		if time.Now().After(deadline) {
			t.Fatalf("%d transactions are open", n)
		}
		if err := f.pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and state = 'idle in transaction'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLateAnswerToAClaim: the network delivers it when the server has long ended
// the session, and another worker has done the job. It does not run again.
func TestLateAnswerToAClaim(t *testing.T) {
	t.Cleanup(scheduler.SetLateAnswer(0))
	f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
		t.Error("a job ran that another worker had done")
		return job.Outcome{Kind: job.Completed}
	}})
	f.holdFor(time.Hour)
	f.config.PollInterval = time.Hour
	var gate sync.RWMutex
	var armed atomic.Bool
	f.config.Hold.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		config := f.pool.Config().ConnConfig.Copy()
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return lateConn{conn, &gate, &armed}, err
		}
		return pgx.ConnectConfig(ctx, config)
	}
	f.warm(t)
	s := scheduler.New(f.config)
	stop := run(t, s)
	f.warmed(t)

	armed.Store(true)
	f.exec(t, "select graphile_worker.add_job('x')")
	s.Wake()
	f.awaitHeld(t, true)
	f.exec(t, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and state = 'idle in transaction'`)
	f.awaitHeld(t, false)
	if err := newOther(f).RunOnce(t.Context()); err != nil || f.jobs(t) != 0 {
		t.Fatalf("%d jobs are left (%v)", f.jobs(t), err)
	}
	gate.Unlock()
	// The claim is repeated on a new connection, and finds nothing.
	f.exec(t, "select graphile_worker.add_job('x', '\"warm\"')")
	s.Wake()
	wait[event.JobCompleted](t, f)
	stop()
}

// TestHoldThatIsClaimedAgainHere: a lost claim's job is taken by the other connection of
// the same worker, whose claim is lost as well. The first one locks the job again,
// although its run has been told to end: the lock must not stay.
func TestHoldThatIsClaimedAgainHere(t *testing.T) {
	var runs atomic.Int32
	started := make(chan struct{}, 2)
	first, second := make(chan struct{}), make(chan struct{})
	f := newFixture(t, map[string]scheduler.Handler{"x": func(context.Context, *job.Claimed) job.Outcome {
		switch runs.Add(1) {
		case 1:
			started <- struct{}{}
			<-first
		case 2:
			started <- struct{}{}
			<-second
		}
		return job.Outcome{Kind: job.Completed}
	}})
	f.holdFor(time.Hour)
	f.config.PollInterval = time.Hour
	f.warm(t)
	s := scheduler.New(f.config)
	stop := run(t, s)
	f.warmed(t)
	f.exec(t, "select graphile_worker.add_job('x', queue_name => 'q')")
	for lane := range 2 {
		s.Wake()
		<-started
		if lane == 0 {
			wait[event.ClaimEmpty](t, f) // of the other one, which looked for further queues
		}
		f.exec(t, `select pg_terminate_backend(pid) from pg_stat_activity
			where datname = current_database() and state = 'idle in transaction'`)
		f.awaitHeld(t, false)
	}
	close(first)
	if lost := wait[event.HoldLost](t, f); lost.Kept != 1 {
		t.Errorf("%+v", lost)
	}
	close(second)
	for deadline := time.Now().Add(patience); f.jobs(t) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("the job is left with %d locks after %d runs", f.locks(t), runs.Load())
		}
	}
	stop()
	if n := f.locks(t); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}
