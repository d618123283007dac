package gworkertest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/gworkertest"
)

// asUser makes this program one of a user's tests, without any TestMain.
const asUser = "GWORKERTEST_AS_USER"

func TestMain(m *testing.M) {
	status := m.Run()
	if os.Getenv(asUser) != "" {
		os.Exit(status)
	}
	if err := gworkertest.StopServer(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			status = 1
		}
	}
	os.Exit(status)
}

// failing is a test that may fail without failing the one that watches it.
type failing struct {
	testing.TB
	mu       sync.Mutex
	said     []string
	logged   []string
	cleanups []func()
}

func (f *failing) note(to *[]string, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*to = append(*to, fmt.Sprintf(format, args...))
}

func (f *failing) Errorf(format string, args ...any) { f.note(&f.said, format, args...) }
func (f *failing) Logf(format string, args ...any)   { f.note(&f.logged, format, args...) }
func (f *failing) Cleanup(do func())                 { f.cleanups = append(f.cleanups, do) }
func (f *failing) Fatalf(format string, args ...any) {
	f.note(&f.said, format, args...)
	panic(fatal{})
}

type fatal struct{}

// watch runs a test to its end and returns it. What it said, it failed with.
func watch(t *testing.T, test func(testing.TB)) *failing {
	t.Helper()
	f := &failing{TB: t}
	guard := func(do func()) {
		defer func() {
			if v := recover(); v != nil && v != (fatal{}) {
				panic(v)
			}
		}()
		do()
	}
	guard(func() { test(f) })
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		guard(f.cleanups[i])
	}
	return f
}

// wantFailure checks that a test fails once, saying all of this.
func wantFailure(t *testing.T, test func(testing.TB), says ...string) {
	t.Helper()
	f := watch(t, test)
	if len(f.said) != 1 {
		t.Fatalf("it failed %d times: %q", len(f.said), f.said)
	}
	for _, part := range says {
		if !strings.Contains(f.said[0], part) {
			t.Errorf("it says %q, want a message with %q", f.said[0], part)
		}
	}
}

func client(t testing.TB, config gworker.ClientConfig) *gworker.Client {
	t.Helper()
	c, err := gworker.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func add(t testing.TB, to gworker.JobAdder, spec gworker.JobSpec) *gworker.JobRow {
	t.Helper()
	job, err := to.AddJob(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func nothing(context.Context, *gworker.RawJob) error { return nil }
