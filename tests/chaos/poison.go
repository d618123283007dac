//go:build unix

package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/gworker/gworker"
)

// A poison is a way for a handler to end that could harm the code that reads its result.
// Its job fails poisonAttempts times, and other jobs go on.
type poison struct {
	end    func() error
	stored string // what last_error begins with
	once   bool   // the first failure is final
	unread bool   // the payload does not decode, so the handler never runs
}

// poisonAttempts are all that a poison job has.
const poisonAttempts = 2

// poisonTask is that of the handlers which end badly. Only gworker's workers have it.
const poisonTask = "poison"

type panics struct{ methods string }

func (p panics) in(method string) {
	if strings.Contains(p.methods, method) {
		panic("no " + method)
	}
}
func (p panics) Error() string  { p.in("Error"); return "broken" }
func (p panics) Unwrap() error  { p.in("Unwrap"); return nil }
func (p panics) Is(error) bool  { p.in("Is"); return false }
func (p panics) As(any) bool    { p.in("As"); return false }
func (p panics) String() string { p.in("String"); return "broken" }

type mayBeNil struct{ text string }

func (e *mayBeNil) Error() string { return e.text }

type exits struct{}

func (exits) Error() string { runtime.Goexit(); return "" }

type endless struct{}

func (e *endless) Error() string { return "round and round" }
func (e *endless) Unwrap() error { return e }

type slow struct{}

func (slow) Error() string { time.Sleep(300 * time.Millisecond); return "slow" }

// bomb is a part of a payload that cannot be decoded.
type bomb string

func (*bomb) UnmarshalJSON([]byte) error { panic("no decoding") }

func returns(err error) func() error    { return func() error { return err } }
func panicsWith(value any) func() error { return func() error { panic(value) } }

var poisons = map[string]poison{
	"Error panics":           {end: returns(panics{"Error"}), stored: "the error's Error method panicked: no Error"},
	"nil pointer":            {end: returns((*mayBeNil)(nil)), stored: "the error's Error method panicked: runtime error"},
	"nil pointer, joined":    {end: returns(errors.Join(errors.New("a"), (*mayBeNil)(nil))), stored: "the error's Error method panicked: runtime error"},
	"nil pointer, wrapped":   {end: returns(fmt.Errorf("sending: %w", panics{"Error"})), stored: "sending: "},
	"nil pointer, final":     {end: returns(gworker.Discard((*mayBeNil)(nil))), stored: "the error's Error method panicked: runtime error", once: true},
	"Unwrap panics":          {end: returns(panics{"Unwrap"}), stored: "broken; the error's Unwrap method panicked: no Unwrap"},
	"Is and As panic":        {end: returns(panics{"Is As"}), stored: "broken"},
	"Error exits":            {end: returns(exits{}), stored: "the error's Error method ended its goroutine"},
	"Error is slow":          {end: returns(slow{}), stored: "slow"},
	"wraps itself":           {end: returns(&endless{}), stored: "round and round"},
	"no text":                {end: returns(errors.New("")), stored: "the handler returned an error without a text"},
	"not UTF-8":              {end: returns(errors.New("a\xff\x00z")), stored: "a\uFFFD\uFFFDz"},
	"huge":                   {end: returns(errors.New(strings.Repeat("é\x00", 1<<20))), stored: "é\uFFFDé"},
	"panic":                  {end: panicsWith("boom"), stored: "panic: boom"},
	"panic, String panics":   {end: panicsWith(panics{"String Error"}), stored: "panic: the error's Error method panicked"},
	"panic, nil Stringer":    {end: panicsWith(&struct{ fmt.Stringer }{}), stored: "panic: "},
	"panic with exits":       {end: panicsWith(exits{}), stored: "panic: the error's Error method ended its goroutine"},
	"panic with a snooze":    {end: panicsWith(gworker.Snooze(time.Hour)), stored: "panic: "},
	"Goexit":                 {end: func() error { runtime.Goexit(); return nil }, stored: "the handler ended its goroutine"},
	"payload cannot be read": {stored: "decoding the payload: panic: no decoding", unread: true},
}

// A refusal is how the trigger in audit.sql rejects the outcome of a job: in its first
// attempts, or in all.
type refusal struct {
	stored string // what last_error begins with, if no attempt is left
	fails  bool   // it is against failures, not completions
}

// refusedTask is that of the jobs whose outcomes are refused.
const refusedTask = "refused"

const notStored = "the job completed, but the database refused to store that: "

var refusals = map[string]refusal{
	"raise":    {stored: notStored},
	"check":    {stored: notStored},
	"encoding": {stored: notStored},
	"null":     {stored: notStored},
	"failure":  {fails: true}, // no text is stored
}

// poison is a job that ends as the poison of that name.
func (l *load) poison(name string) (gworker.JobSpec, *entry) {
	p, n := poisons[name], l.next.Add(1)
	e := &entry{n: n, expect: "failed", attempts: poisonAttempts, runs: poisonAttempts, stored: p.stored}
	var body any = payload{N: n, Poison: name}
	switch {
	case p.unread:
		body, e.runs = map[string]any{"n": n, "bomb": 1}, 0
	case p.once:
		e.runs = 1
	}
	return gworker.JobSpec{Task: poisonTask, Payload: body, MaxAttempts: poisonAttempts}, e
}

// refused is a job whose outcome is refused in its first attempt, or in each.
func (l *load) refused(name string, always bool, queue string) (gworker.JobSpec, *entry) {
	r, n := refusals[name], l.next.Add(1)
	p := payload{N: n, Refuse: name, Until: 1}
	if r.fails {
		p.Fails = 1
	}
	spec := gworker.JobSpec{Task: refusedTask, Queue: queue}
	e := &entry{n: n, expect: "ok", attempts: 25}
	if always {
		p.Until = 99
		if r.fails {
			p.Fails = 99
		}
		spec.MaxAttempts = poisonAttempts
		e.expect, e.attempts, e.runs, e.stored = "failed", poisonAttempts, poisonAttempts, r.stored
	}
	spec.Payload = p
	return spec, e
}
