package scheduler_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/testdb"
)

// slowConn makes every claim an expensive one, so that scans are made.
type slowConn struct{ net.Conn }

func (c slowConn) Read(b []byte) (int, error) {
	time.Sleep(3 * time.Millisecond)
	return c.Conn.Read(b)
}

// slowConns has the connections for held claims be slow ones.
func (f *fixture) slowConns() {
	f.config.Hold.Connect = func(ctx context.Context) (*pgx.Conn, error) {
		config := f.pool.Config().ConnConfig.Copy()
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return slowConn{conn}, err
		}
		return pgx.ConnectConfig(ctx, config)
	}
}

// takeAll takes every connection of the scheduler's pool, as handlers may.
func (f *fixture) takeAll(t *testing.T) (free func()) {
	t.Helper()
	var taken []*pgxpool.Conn
	for range f.pool.Config().MaxConns {
		conn, err := f.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, conn)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			for _, conn := range taken {
				conn.Release()
			}
		})
	}
}

// otherConn is a connection that is not the scheduler's.
func (f *fixture) otherConn(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), f.pool.Config().ConnConfig.Copy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// waking wakes the scheduler all the time, as adders do.
func waking(s *scheduler.Scheduler) (stop func()) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				s.Wake()
			}
		}
	}()
	return sync.OnceFunc(func() { close(done); <-over })
}

// spilled waits until the locks of jobs were written, which no transaction may be
// lost for.
func (f *fixture) spilled(t *testing.T) {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e := <-f.events:
			switch e := e.(type) {
			case event.HoldLost, event.JobLost:
				t.Fatalf("%T %+v", e, e)
			case event.JobsSpilled:
				return
			}
		case <-timeout:
			t.Fatal("the group never ended")
		}
	}
}

// TestHeldClaimEndsThoughNoConnectionIsFree: neither a scan nor an ordinary claim keeps
// it from that, when handlers have all connections of the pool. Short jobs go on.
func TestHeldClaimEndsThoughNoConnectionIsFree(t *testing.T) {
	var sample testdb.Sample
	for name, slow := range map[string]bool{"scans": false, "ordinary claims": true} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			started, free := make(chan struct{}), make(chan struct{})
			ran := make(chan struct{}, 100)
			f := newFixture(t, map[string]scheduler.Handler{
				"long": func(context.Context, *job.Claimed) job.Outcome {
					close(started)
					<-free
					return job.Outcome{Kind: job.Completed}
				},
				"slow": completes,
				"short": func(context.Context, *job.Claimed) job.Outcome {
					ran <- struct{}{}
					return job.Outcome{Kind: job.Completed}
				},
			})
			f.holdFor(300 * time.Millisecond)
			f.slowConns()
			f.config.PollInterval, f.config.StatementTimeout = time.Hour, time.Hour
			f.config.Concurrency = 20
			f.warm(t)
			s := scheduler.New(f.config)
			stop := run(t, s)
			defer stop()
			defer close(free)
			f.warmed(t)
			conn := f.otherConn(t)
			jobs := 1
			if slow {
				s.Ran("slow", 1000*time.Hour)
				jobs = 12 // so that most jobs are slow
			}
			if _, err := conn.Exec(t.Context(), `select graphile_worker.add_job(case when n = 1 then 'long' else 'slow' end)
				from generate_series(1, $1::int) n`, jobs); err != nil {
				t.Fatal(err)
			}
			release := f.takeAll(t)
			defer release()
			s.Wake()
			<-started
			defer waking(s)()
			f.spilled(t)
			if _, err := conn.Exec(t.Context(), "select graphile_worker.add_job('short')"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ran:
			case <-time.After(patience):
				t.Fatal("a short job waits for a connection that it does not need")
			}
		})
	}
}

// TestHeldClaimEndsThoughTablesAreToBeLocked: what waits for a lock that conflicts with a
// group's own does not keep the group from its end, by no statement of the worker's that
// waits behind it. Nothing is lost and nobody waits for longer than the hold time.
func TestHeldClaimEndsThoughTablesAreToBeLocked(t *testing.T) {
	var sample testdb.Sample
	for name, statement := range map[string]string{
		"vacuum full":  "vacuum full %s",
		"lock table":   "do $$ begin lock table %s in access exclusive mode; end $$",
		"alter table":  "alter table %s replica identity full",
		"create index": "create index on %s ((1))",
		"reindex":      "reindex table %s",
	} {
		for _, table := range []string{"_private_jobs", "_private_job_queues", "_private_tasks"} {
			t.Run(name+" "+table, func(t *testing.T) {
				sample.Take(t)
				t.Parallel()
				started, free := make(chan struct{}), make(chan struct{})
				var mu sync.Mutex
				runs := map[int64]int{}
				f := newFixture(t, map[string]scheduler.Handler{"long": func(_ context.Context, j *job.Claimed) job.Outcome {
					close(started)
					<-free
					return job.Outcome{Kind: job.Completed}
				}, "short": func(_ context.Context, j *job.Claimed) job.Outcome {
					mu.Lock()
					defer mu.Unlock()
					runs[j.ID]++
					return job.Outcome{Kind: job.Completed}
				}})
				f.holdFor(250 * time.Millisecond)
				f.slowConns()
				f.config.PollInterval, f.config.StatementTimeout = time.Hour, time.Hour
				f.warm(t)
				s := scheduler.New(f.config)
				stop := run(t, s)
				defer stop()
				end := sync.OnceFunc(func() { close(free) })
				defer end()
				f.warmed(t)
				ddl, adder := f.otherConn(t), f.otherConn(t)
				f.exec(t, "select graphile_worker.add_job('long', queue_name => 'q')")
				s.Wake()
				<-started
				defer waking(s)()
				over := make(chan error, 1)
				go func() {
					_, err := ddl.Exec(t.Context(), fmt.Sprintf(statement, "graphile_worker."+table))
					over <- err
				}()
				const jobs = 20
				for n := range jobs {
					if _, err := adder.Exec(t.Context(), "select graphile_worker.add_job('short', queue_name => $1)", fmt.Sprint("q", n)); err != nil {
						t.Error(err)
					}
				}
				f.spilled(t)
				if err := <-over; err != nil {
					t.Error(err)
				}
				end()
				f.drained(t)
				stop()
				for len(f.events) > 0 {
					switch e := (<-f.events).(type) {
					case event.HoldLost, event.JobLost, event.ClaimFailed:
						t.Errorf("%T %+v", e, e)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				ranOnce(t, runs, jobs)
			})
		}
	}
}

// TestClaimsGoOnWithoutConnectionsToHold: where they cannot be had, jobs are locked at
// once, and held again as soon as they can be.
func TestClaimsGoOnWithoutConnectionsToHold(t *testing.T) {
	var sample testdb.Sample
	defer scheduler.SetFirstConnect(100 * time.Millisecond)()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	elsewhere := func(port int) func(*pgx.ConnConfig) {
		return func(c *pgx.ConnConfig) { c.Host, c.Port, c.Fallbacks = "127.0.0.1", uint16(port), nil }
	}
	for name, stands := range map[string]func(*pgx.ConnConfig){
		"server full": func(c *pgx.ConnConfig) { c.User = "no_connections" },
		"silent":      elsewhere(silent.Addr().(*net.TCPAddr).Port),
		"refused":     elsewhere(1), // where nobody listens
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			f := newFixture(t, map[string]scheduler.Handler{"x": completes})
			f.holdFor(time.Hour)
			f.exec(t, `do $$ begin create role no_connections login connection limit 0; exception when duplicate_object then end $$`)
			var away atomic.Bool
			away.Store(true)
			f.config.PollInterval, f.config.StatementTimeout = time.Hour, time.Hour
			f.config.Hold.Connect = func(ctx context.Context) (*pgx.Conn, error) {
				config := f.pool.Config().ConnConfig.Copy()
				if away.Load() {
					stands(config)
				}
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				return pgx.ConnectConfig(ctx, config)
			}
			s := scheduler.New(f.config)
			stop := run(t, s)
			defer stop()
			told := false
			for done := 0; done < 3 || !told; {
				f.exec(t, "select graphile_worker.add_job('x')")
				s.Wake()
				for before := done; done == before; {
					switch e := (<-f.events).(type) {
					case event.ClaimFailed:
						t.Fatalf("%+v", e)
					case event.HoldUnavailable:
						told = true
					case event.JobCompleted:
						done++
					}
				}
			}
			if n := f.db.count("ClaimJobs"); n < 3 {
				t.Errorf("%d ordinary claims", n)
			}
			away.Store(false)
			for before, tries := f.db.count("ClaimJobs"), 0; ; tries++ {
				s.DatabaseBack()
				f.exec(t, "select graphile_worker.add_job('x')")
				s.Wake()
				wait[event.JobCompleted](t, f)
				if now := f.db.count("ClaimJobs"); now == before {
					break // it was held
				} else if before = now; tries > 10_000 {
					t.Fatal("no job is held")
				}
			}
		})
	}
}
