//go:build unix

package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A choice is all that is drawn for one fault. What it becomes depends on
// nothing but the seed; when exactly it happens depends on the machine.
type choice struct {
	number int
	kind   string
	slot   int           // which worker, for faults that have one
	length float64       // 0 to 1, of the kind's range
	roll   float64       // 0 to 1, for whatever else the kind decides
	pause  time.Duration // before the next one
}

// A kind of fault. A wide one hits all workers; those come one at a time.
type kind struct {
	name string
	wide bool
	do   func(*chaos, context.Context, choice) error
}

var kinds = []kind{
	{"kill", false, (*chaos).kill},
	{"freeze", false, (*chaos).freeze},
	{"blink", false, (*chaos).blink},
	{"delay", false, (*chaos).delayed},
	{"cut", false, (*chaos).cut},
	{"blackhole", false, (*chaos).blackhole},
	{"terminate", true, (*chaos).terminate},
	{"restart", true, (*chaos).restartFast},
	{"crash", true, (*chaos).restartImmediate},
	{"stall", true, (*chaos).stall},
	{"timeouts", true, (*chaos).timeouts},
	{"failover", true, (*chaos).failover},
	{"poison", true, (*chaos).poison},
	{"refuse", true, (*chaos).refuse},
	{"deallocate", true, (*chaos).deallocate},
	{"ddl", true, (*chaos).ddl},
	{"rights", true, (*chaos).rights},
	{"limits", true, (*chaos).limits},
	{"idle", true, (*chaos).idle},
	{"hush", false, (*chaos).hush},
	{"disk", true, (*chaos).disk},
	{"clock", true, (*chaos).step},
}

func faultKinds() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// commonKinds are those that are drawn unless others are asked for. The clock is not: the
// library that steps it makes the server, and every reading of the time, slow.
func commonKinds() []string {
	return slices.DeleteFunc(faultKinds(), func(name string) bool { return name == "clock" })
}

// monkey draws faults. Each kind comes once before any comes again.
type monkey struct {
	random *rand.Rand
	kinds  []string
	bag    []string
	drawn  int
	slots  int
	pause  int64
}

func newMonkey(o options, slots int) *monkey {
	m := &monkey{random: rand.New(rand.NewPCG(o.Seed, 1)), kinds: o.Faults, slots: slots, pause: o.Pause.Milliseconds()}
	if len(m.kinds) == 0 {
		m.kinds = commonKinds()
	}
	return m
}

func (m *monkey) draw() choice {
	if len(m.bag) == 0 {
		m.bag = slices.Clone(m.kinds)
		m.random.Shuffle(len(m.bag), func(i, j int) { m.bag[i], m.bag[j] = m.bag[j], m.bag[i] })
	}
	kind := m.bag[0]
	m.bag = m.bag[1:]
	m.drawn++
	return choice{
		number: m.drawn, kind: kind, slot: m.random.IntN(m.slots), length: m.random.Float64(), roll: m.random.Float64(),
		pause: time.Duration(m.random.Int64N(max(m.pause, 1))) * time.Millisecond,
	}
}

// breakThings does one fault after another until the time is over, or enough
// closes. Faults of one worker go on while the next one begins.
func (c *chaos) breakThings(ctx context.Context, enough <-chan struct{}) {
	var wait sync.WaitGroup
	defer wait.Wait()
	monkey := newMonkey(c.options, len(c.fleet.slots))
	over := time.NewTimer(c.options.Duration)
	defer over.Stop()
	for {
		drawn := monkey.draw()
		k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == drawn.kind })]
		do := func() {
			if err := k.do(c, ctx, drawn); err != nil && ctx.Err() == nil {
				c.log.breaks("the harness works", "#%d %s: %v", drawn.number, drawn.kind, err)
			}
		}
		if k.wide {
			do()
		} else {
			slot := c.fleet.slots[drawn.slot]
			slot.busy.Lock() // until then its last fault is over
			wait.Go(func() {
				defer slot.busy.Unlock()
				do()
			})
		}
		pause := time.NewTimer(drawn.pause)
		select {
		case <-pause.C:
		case <-over.C:
			pause.Stop()
			return
		case <-enough:
			pause.Stop()
			return
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// between is a length of time out of a range.
func (d choice) between(from, to time.Duration) time.Duration {
	return from + time.Duration(d.length*float64(to-from)).Round(time.Millisecond)
}

// last lets a fault go on for some time, less if the run is broken off.
func last(ctx context.Context, length time.Duration) {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
