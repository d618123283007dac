package wait_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gworker/gworker/internal/wait"
)

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := wait.Sleep(t.Context(), time.Hour); err != nil || time.Since(began) != time.Hour {
			t.Errorf("slept %s: %v", time.Since(began), err)
		}
		over := errors.New("over")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(over) })
		began = time.Now()
		if err := wait.Sleep(ctx, time.Hour); !errors.Is(err, over) || time.Since(began) != time.Second {
			t.Errorf("slept %s: %v", time.Since(began), err)
		}
	})
}

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed, open := make(chan struct{}), make(chan struct{})
		close(closed)
		ended, end := context.WithCancel(t.Context())
		end()
		for name, c := range map[string]struct {
			ctx  context.Context
			done chan struct{}
			took time.Duration
			want bool
		}{
			"done":  {t.Context(), closed, 0, true},
			"limit": {t.Context(), open, time.Minute, false},
			"ended": {ended, open, 0, false},
		} {
			began := time.Now()
			if got := wait.For(c.ctx, c.done, time.Minute); got != c.want || time.Since(began) != c.took {
				t.Errorf("%s: %t after %s", name, got, time.Since(began))
			}
		}
	})
}

// Wake-ups before one is heard are one, and the one after it is another.
func TestWake(t *testing.T) {
	c := make(chan struct{}, 1)
	for range 2 {
		wait.Wake(c)
		wait.Wake(c)
		<-c
		if len(c) != 0 {
			t.Error("two wake-ups were kept")
		}
	}
}
