package scheduler

import (
	"github.com/gworker/gworker/internal/job"
)

// ReleaseEarly has the claims that hold jobs which concern the caller end as soon as they
// can, for a statement that would wait for their rows. It does not wait, and unlike
// Write it changes nothing for later jobs of their tasks.
func (s *Scheduler) ReleaseEarly(concerns func(*job.Claimed) bool) { s.pool.releaseEarly(concerns) }

func (p *pool) releaseEarly(concerns func(*job.Claimed) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for oc := range p.openClaims {
		if oc.wanted || oc.state != claimOpen {
			continue
		}
		for _, a := range oc.jobs {
			if !a.withdrawn && concerns(a.job) {
				oc.wanted = true
				p.nudge()
				break
			}
		}
	}
}
