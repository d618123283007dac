package scheduler

import "github.com/gworker/gworker/internal/job"

// Hurry has the claims that hold jobs which concern the caller end as soon as they
// can, for a statement that would wait for their rows. It does not wait, and unlike
// Write it changes nothing for later jobs of their tasks.
func (s *Scheduler) Hurry(concerns func(*job.Claimed) bool) { s.pool.hurry(concerns) }

func (p *pool) hurry(concerns func(*job.Claimed) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for g := range p.groups {
		if g.wanted || g.state != groupOpen {
			continue
		}
		for _, a := range g.jobs {
			if !a.withdrawn && concerns(a.job) {
				g.wanted = true
				p.attend()
				break
			}
		}
	}
}
