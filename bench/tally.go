package main

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A tally counts what a worker's handlers do. All of Go's sides share it, and
// worker.mjs and tally.rs do the same.
type tally struct {
	record                     bool
	started, finished, failed  atomic.Int64
	first, busy                atomic.Int64
	mu                         sync.Mutex
	latencies                  histogram
	times                      [][2]int64
	begun                      chan struct{} // closed by the first job
	stopCounting, countingDone chan struct{}
	alarms                     chan *alarm
}

// countEvery is how often a worker says how many jobs it has finished.
const countEvery = 5 * time.Millisecond

func newTally(o order) *tally {
	t := &tally{
		record: o.Record, begun: make(chan struct{}), stopCounting: make(chan struct{}), countingDone: make(chan struct{}),
		alarms: make(chan *alarm, 2048),
	}
	go func() {
		defer close(t.countingDone)
		select {
		case <-t.begun: // a worker with nothing to do must not be woken by us
		case <-t.stopCounting:
			return
		}
		ticker := time.NewTicker(countEvery)
		defer ticker.Stop()
		last := int64(0)
		for {
			select {
			case <-ticker.C:
				if r := t.reply("count"); r.Finished != last {
					last = r.Finished
					say(r)
				}
			case <-t.stopCounting:
				return
			}
		}
	}()
	return t
}

var errAsked = errors.New("as the payload asks")

// handle is the task.
func (t *tally) handle(ctx context.Context, p payload, attempt int) error {
	now := time.Now()
	if t.started.Add(1) == 1 {
		t.first.Store(now.UnixNano())
		close(t.begun)
	}
	if p.Probe != 0 {
		say(reply{Event: "probe", N: p.N, At: now.UnixNano()})
	}
	if t.record || p.At != 0 {
		t.mu.Lock()
		if p.At != 0 {
			t.latencies.add(float64(now.UnixMicro())/1000 - p.At)
		}
		if t.record {
			t.times = append(t.times, [2]int64{p.N, now.UnixMicro()})
		}
		t.mu.Unlock()
	}
	if p.Ms > 0 {
		if err := t.wait(ctx, time.Duration(p.Ms)*time.Millisecond); err != nil {
			return err
		}
	}
	defer t.finished.Add(1)
	t.busy.Add(int64(time.Since(now)))
	if attempt <= p.Fail {
		t.failed.Add(1)
		return errAsked
	}
	return nil
}

// wait takes one of the alarms that nobody waits for.
func (t *tally) wait(ctx context.Context, d time.Duration) error {
	var a *alarm
	select {
	case a = <-t.alarms:
	default:
		var err error
		if a, err = newAlarm(); err != nil {
			return err
		}
	}
	err := a.wait(ctx, d)
	if err != nil {
		return err // whatever it still waits for, nobody else shall get it
	}
	select {
	case t.alarms <- a:
	default:
	}
	return nil
}

func (t *tally) reply(event string) reply {
	return reply{
		Event: event, At: time.Now().UnixNano(), Finished: t.finished.Load(), Started: t.started.Load(),
		Failed: t.failed.Load(), First: t.first.Load(), Busy: t.busy.Load(),
	}
}

// end says how it all ended, after the last handler.
func (t *tally) end() {
	close(t.stopCounting)
	<-t.countingDone
	r := t.reply("end")
	r.Latencies, r.Worst, r.Times = t.latencies.counts, t.latencies.worst, t.times
	say(r)
}

// A histogram counts durations in classes that are 2 % wide, from a microsecond
// on; class k begins at 1.02^k microseconds.
type histogram struct {
	counts map[int]int64
	worst  float64
}

const classWidth = 1.02

func (h *histogram) add(ms float64) {
	if h.counts == nil {
		h.counts = make(map[int]int64)
	}
	h.counts[int(math.Log(math.Max(1, ms*1000))/math.Log(classWidth))]++
	h.worst = math.Max(h.worst, ms)
}

func (h *histogram) merge(counts map[int]int64, worst float64) {
	if h.counts == nil {
		h.counts = make(map[int]int64)
	}
	for k, n := range counts {
		h.counts[k] += n
	}
	h.worst = math.Max(h.worst, worst)
}

// quantile is in milliseconds.
func (h *histogram) quantile(q float64) float64 {
	total, most := int64(0), 0
	for k, n := range h.counts {
		total, most = total+n, max(most, k)
	}
	seen := int64(0)
	for k := 0; k <= most; k++ {
		if seen += h.counts[k]; float64(seen) >= q*float64(total) {
			return math.Min(h.worst, math.Pow(classWidth, float64(k)+0.5)/1000)
		}
	}
	return h.worst
}
