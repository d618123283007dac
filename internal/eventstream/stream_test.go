package eventstream_test

import (
	"runtime"
	"slices"
	"testing"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/eventstream"
)

// TestEverybodyIsTold: an observer that fails keeps an event from nobody, and only
// EmitHere passes the end of the goroutine on.
func TestEverybodyIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		fail  func()
		value any
		exits bool
	}{
		"nothing": {fail: func() {}},
		"panic":   {fail: func() { panic("boom") }, value: "boom"},
		"exit":    {fail: runtime.Goexit, value: contain.ErrGoexit, exits: true},
	} {
		for kind, emit := range map[string]func(*eventstream.Stream, event.Event){
			"Emit": (*eventstream.Stream).Emit, "EmitHere": (*eventstream.Stream).EmitHere,
		} {
			var told []string
			var reported []any
			note := func(who string, fails bool) eventstream.Observer {
				return func(e event.Event) {
					if p, is := e.(event.ObserverPanicked); is {
						if who == "last" {
							reported = append(reported, p.Value)
						}
						return
					}
					told = append(told, who)
					if fails {
						c.fail()
					}
				}
			}
			s := eventstream.New(note("first", false), note("second", true), note("last", false))
			sub := s.Subscribe(10, []event.Event{event.JobsClaimed{}}, nil)
			returned := false
			err := contain.Call(func() {
				emit(s, event.JobsClaimed{})
				returned = true
			})
			if returned != (!c.exits || kind == "Emit") || err != nil && !c.exits {
				t.Errorf("%s, %s: returned: %t, %v", name, kind, returned, err)
			}
			if !slices.Equal(told, []string{"first", "second", "last"}) || len(sub.Events()) != 1 {
				t.Errorf("%s, %s: told %q, and %d subscriptions", name, kind, told, len(sub.Events()))
			}
			if c.value == nil && len(reported) != 0 || c.value != nil && !slices.Equal(reported, []any{c.value}) {
				t.Errorf("%s, %s: reported %v", name, kind, reported)
			}
			s.Close()
		}
	}
}
