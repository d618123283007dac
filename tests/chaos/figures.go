//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// figures are what is counted on the way.
type figures struct {
	mu       sync.Mutex
	moves    []time.Duration
	memory   map[string][]int // resident kilobytes of each slot, a sample a second
	sessions map[string]int   // the most of each slot
	drained  time.Duration
}

func newFigures() *figures {
	return &figures{memory: make(map[string][]int), sessions: make(map[string]int)}
}

func (f *figures) moved(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moves = append(f.moves, took)
}

// sample looks at the processes every second, until ctx ends.
func (f *figures) sample(ctx context.Context, c *chaos) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		f.mu.Lock()
		for _, s := range c.fleet.slots {
			if p := s.now(); p.running() {
				if kb := resident(p.cmd.Process.Pid); kb > 0 {
					f.memory[s.name] = append(f.memory[s.name], kb)
				}
			}
			f.sessions[s.name] = max(f.sessions[s.name], s.proxy.connections())
		}
		f.mu.Unlock()
	}
}

// resident is a process's memory in kilobytes, 0 where there is no /proc.
func resident(pid int) int {
	text, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb
		}
	}
	return 0
}

const (
	// soakSamples are enough to tell growth from noise.
	soakSamples = 300
	// slackKB is the growth that says nothing.
	slackKB = 16 << 10
	// sessionsMost is a worker's pool with its listener, its heartbeat and its
	// held claims, and what is still closing.
	sessionsMost = 2 * (concurrency + 4 + 4)
)

// growth finds workers whose memory or connections did not stay flat.
func (f *figures) growth() (evidence []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range sorted(f.memory) {
		samples := f.memory[name]
		if len(samples) >= soakSamples {
			third := len(samples) / 3
			before, after := median(samples[third:2*third]), median(samples[2*third:])
			if after > before*3/2 && after > before+slackKB {
				evidence = append(evidence, fmt.Sprintf("%s: %d KB in the second third, %d KB in the last", name, before, after))
			}
		}
		if n := f.sessions[name]; n > sessionsMost && !strings.HasPrefix(name, string(nodeRuntime)) && !strings.HasPrefix(name, string(rustRuntime)) {
			evidence = append(evidence, fmt.Sprintf("%s had %d connections at once", name, n))
		}
	}
	return evidence
}

// lines are the figures to print.
func (f *figures) lines(ctx context.Context, c *chaos) ([]string, error) {
	states := make(map[string]int)
	for _, e := range c.load.entries {
		states[e.state]++
	}
	kinds := make(map[string]int)
	for _, fault := range c.log.faults {
		kinds[fault.Kind]++
	}
	lines := []string{
		fmt.Sprintf("jobs        %s; %d adds failed", counted(states), c.load.errors.Load()),
		fmt.Sprintf("faults      %d: %s", len(c.log.faults), counted(kinds)),
	}
	counts, err := c.oracle.lines(ctx, `
		select 'runs        ' || count(*) || ' (' || count(*) filter (where runtime = 'node') || ' by Node, '
			|| count(*) filter (where runtime = 'rust') || ' by Rust), of jobs ' || count(distinct job_id)
			|| '; ended ' || (select string_agg(what || ' ' || n, ', ' order by what) from (
				select coalesce(outcome, 'with the process') as what, count(*) as n from ran group by 1) a)
		from ran
		union all
		select 'repeated    ' || count(*) - count(distinct (job_id, attempt)) || ' runs of an attempt that had begun before; '
			|| count(*) filter (where stale) || ' runs went on without their lock, '
			|| count(*) filter (where stale and outcome = 'lost') || ' of which were told'
		from ran
		union all
		select 'held        ' || count(*) filter (where ended_held) || ' runs ended while held, ' ||
			count(*) filter (where claim_lost or relocked) || ' were lost with their claims: ' || count(*) filter (where relocked) || ' locked again, ' ||
			count(*) filter (where claim_lost and outcome = 'cut') || ' put back, ' ||
			count(*) filter (where claim_lost and outcome = 'lost') || ' told; in ' || count(*) filter (where (claim_lost or relocked) and exists (
				select from ran b where b.job_id = a.job_id and b.id <> a.id
					and b.started_at < a.ended_at and b.ended_at > a.started_at)) || ' the job ran elsewhere too'
		from ran a where runtime = 'gworker'
		union all
		select 'locks taken ' || count(*) || ' from ' || count(distinct process) || ' processes, ' ||
			count(*) filter (where p.ended_at > t.at) || ' of them while the holder lived'
		from taken t left join processes p on p.name = t.process
		union all
		select 'recovery    of jobs after a kill: ' || coalesce(
			'p50 ' || round(percentile_cont(0.5) within group (order by took)::numeric, 2) || ' s, max ' ||
			round(max(took)::numeric, 2) || ' s, of ' || count(*) || ' jobs', 'there were none')
		from (
			select extract(epoch from (
				select min(b.started_at) from ran b where b.job_id = a.job_id and b.started_at > a.ended_at) - a.ended_at) as took
			from ran a where a.killed and a.runtime = 'gworker' and a.outcome is null
		) k having true`)
	if err != nil {
		return nil, err
	}
	lines = append(lines, counts...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.moves) > 0 {
		slices.Sort(f.moves)
		lines = append(lines, fmt.Sprintf("failover    work on the new primary after: p50 %s, max %s, of %d workers",
			seconds(f.moves[len(f.moves)/2]), seconds(f.moves[len(f.moves)-1]), len(f.moves)))
	}
	events := make(map[string]int)
	for _, s := range c.fleet.slots {
		for _, p := range s.processes() {
			for name, n := range p.events {
				if name != "worker" {
					events[name] += n
				}
			}
		}
	}
	lines = append(lines, "events      "+counted(events), "drained     "+seconds(f.drained)+" after the last fault")
	for _, name := range sorted(f.memory) {
		samples := f.memory[name]
		lines = append(lines, fmt.Sprintf("%-11s peak %.1f MB, median %.1f MB, at most %d connections",
			name, float64(slices.Max(samples))/1024, float64(median(samples))/1024, f.sessions[name]))
	}
	return lines, nil
}

func median(samples []int) int {
	s := slices.Sorted(slices.Values(samples))
	return s[len(s)/2]
}

func counted(counts map[string]int) string {
	var parts []string
	for _, name := range sorted(counts) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
