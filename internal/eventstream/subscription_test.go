package eventstream_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/eventstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// numbered is an event that can be told from others.
func numbered(n int) event.Event { return event.JobsClaimed{Count: n} }

func drain(sub *eventstream.Subscription) (got []event.Event) {
	for {
		select {
		case e, ok := <-sub.Events():
			if !ok {
				return got
			}
			got = append(got, e)
		default:
			return got
		}
	}
}

func TestSubscriptionDropsAndCounts(t *testing.T) {
	s := eventstream.New()
	sub := s.Subscribe(3, nil, nil)
	for n := range 5 {
		s.Emit(numbered(n))
	}
	if got, want := fmt.Sprint(drain(sub)), fmt.Sprint([]event.Event{numbered(0), numbered(1), numbered(2)}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := sub.Dropped(); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
	s.Emit(numbered(5))
	if got := drain(sub); len(got) != 1 || got[0] != numbered(5) {
		t.Errorf("with room again: %v", got)
	}
}

func TestSubscriptionChooses(t *testing.T) {
	var panics atomic.Int32
	s := eventstream.New(func(e event.Event) {
		if _, ok := e.(event.ObserverPanicked); ok {
			panics.Add(1)
		}
	})
	byType := s.Subscribe(10, []event.Event{event.JobFailed{}, event.JobLost{WorkerID: "any"}}, nil)
	byBoth := s.Subscribe(10, []event.Event{event.JobsClaimed{}}, func(e event.Event) bool { return e.(event.JobsClaimed).Count > 1 })
	bad := s.Subscribe(10, nil, func(e event.Event) bool { panic("bad filter") })
	s.Emit(event.JobFailed{})
	s.Emit(numbered(1))
	s.Emit(numbered(2))
	if got := drain(byType); len(got) != 1 {
		t.Errorf("by type: %v", got)
	}
	if got := drain(byBoth); len(got) != 1 || got[0] != numbered(2) {
		t.Errorf("by type and filter: %v", got)
	}
	if got := drain(bad); len(got) != 0 || panics.Load() != 3 {
		t.Errorf("a filter that panics: %v, and %d reports of 3", got, panics.Load())
	}
}

func TestSubscriptionEnds(t *testing.T) {
	s := eventstream.New()
	closed, left := s.Subscribe(5, nil, nil), s.Subscribe(5, nil, nil)
	s.Emit(numbered(1))
	closed.Close()
	closed.Close()
	s.Emit(numbered(2))
	if got := drain(closed); len(got) != 1 {
		t.Errorf("after its end it holds %v, want what came before", got)
	}
	s.Close()
	s.Close()
	s.Emit(numbered(3))
	if got := drain(left); len(got) != 2 {
		t.Errorf("the stream's end left %v", got)
	}
	left.Close()
	if _, ok := <-s.Subscribe(5, nil, nil).Events(); ok {
		t.Error("a closed stream has a subscription with events")
	}
	if s.WantsFrequent() {
		t.Error("nobody is left who wants events")
	}
}

// Everything at once, for the race detector: and a reader that never reads holds
// up nobody.
func TestSubscriptionsComeAndGo(t *testing.T) {
	s := eventstream.New()
	stuck := s.Subscribe(1, nil, nil)
	var emitters, readers sync.WaitGroup
	const each = 2000
	for range 4 {
		emitters.Go(func() {
			for n := range each {
				s.Emit(numbered(n))
			}
		})
		readers.Go(func() {
			for range 200 {
				sub := s.Subscribe(2, nil, nil)
				drain(sub)
				sub.Close()
				sub.Dropped()
			}
		})
		readers.Go(func() {
			sub := s.Subscribe(100, nil, nil)
			for range sub.Events() {
			}
		})
	}
	emitters.Wait()
	s.Close()
	readers.Wait()
	if n := stuck.Dropped(); n != 4*each-1 {
		t.Errorf("%d dropped, want all but one of %d", n, 4*each)
	}
}

func TestWhoWantsFrequentEvents(t *testing.T) {
	ignore, log := func(event.Event) {}, func(event.Event) error { return nil }
	var none *eventstream.Stream
	var debug, info bool
	levels := eventstream.LogLevels{Debug: func() bool { return debug }, Info: func() bool { return info }}
	withLog := eventstream.NewWithLog(log, levels)
	for name, c := range map[string]struct {
		stream *eventstream.Stream
		want   bool
	}{
		"nil": {none, false}, "nobody": {eventstream.New(), false}, "an observer": {eventstream.New(ignore), true},
		"a quiet log": {withLog, false}, "a quiet log and an observer": {eventstream.NewWithLog(log, levels, ignore), true},
	} {
		if frequent, routine := c.stream.WantsFrequent(), c.stream.WantsRoutine(); frequent != c.want || routine != c.want {
			t.Errorf("%s: %v and %v", name, frequent, routine)
		}
	}
	info = true
	if withLog.WantsFrequent() || !withLog.WantsRoutine() {
		t.Error("a log at the level info wants what is routine, and no more")
	}
	debug = true
	if !withLog.WantsFrequent() {
		t.Error("a verbose log wants them")
	}
	s := eventstream.New()
	sub := s.Subscribe(1, nil, nil)
	if !s.WantsFrequent() {
		t.Error("a subscription wants them")
	}
	sub.Close()
	if s.WantsFrequent() {
		t.Error("frequent events are wanted after the subscription was closed")
	}
}

// What the scheduler does with each claim, by who is there to hear of it.
func BenchmarkFrequentEvent(b *testing.B) {
	emit := func(s *eventstream.Stream) {
		if s.WantsFrequent() {
			s.Emit(event.ClaimEmpty{WorkerID: "w", Asked: 10, Duration: time.Second})
		}
	}
	b.Run("nobody", func(b *testing.B) {
		s := eventstream.New()
		b.ReportAllocs()
		for b.Loop() {
			emit(s)
		}
	})
	b.Run("an observer", func(b *testing.B) {
		s := eventstream.New(func(event.Event) {})
		b.ReportAllocs()
		for b.Loop() {
			emit(s)
		}
	})
	for _, n := range []int{1, 100} {
		for name, types := range map[string][]event.Event{"all": nil, "other types": {event.JobFailed{}}} {
			b.Run(fmt.Sprintf("%d full subscriptions to %s", n, name), func(b *testing.B) {
				s := eventstream.New()
				for range n {
					s.Subscribe(1, types, nil)
				}
				b.ReportAllocs()
				for b.Loop() {
					emit(s)
				}
			})
		}
	}
}
