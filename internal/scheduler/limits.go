package scheduler

import (
	"sync"

	"github.com/gworker/gworker/internal/job"
)

// limits keeps tasks from having more than so many jobs here at once. What
// counts is every job that this worker has claimed and whose handler has not
// returned yet: those that run and those that wait in the local queue. So a job
// in the local queue never waits for its task, and no other waits behind it.
type limits struct {
	most map[string]int // nil: no task has a limit

	mu      sync.Mutex
	running map[string]int

	// room is what the last claim was given for each task, less what it took.
	// Where that is 0, the database may have further jobs of the task. It
	// belongs to the loop.
	room map[string]int
}

func newLimits(most map[string]int) *limits {
	if len(most) == 0 {
		return &limits{}
	}
	return &limits{most: most, running: make(map[string]int, len(most)), room: make(map[string]int, len(most))}
}

// none reports whether no task has a limit.
func (l *limits) none() bool { return l.most == nil }

// start counts a job that is about to run, unless its task is at its limit.
func (l *limits) start(task string) bool {
	most := l.most[task]
	if most == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running[task] >= most {
		return false
	}
	l.running[task]++
	return true
}

// end counts a job that runs no more.
func (l *limits) end(task string) {
	if l.most[task] == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[task]--
}

// rooms lists the tasks that may have further jobs, and how many. held counts
// the jobs that wait here.
func (l *limits) rooms(held map[string]int) (tasks []string, rooms []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for task, most := range l.most {
		room := max(0, most-l.running[task]-held[task])
		l.room[task] = room
		if room > 0 {
			tasks, rooms = append(tasks, task), append(rooms, int32(room))
		}
	}
	return tasks, rooms
}

// claimed notes what a claim took of the rooms.
func (l *limits) claimed(jobs []*job.Claimed) {
	if l.none() {
		return
	}
	for _, j := range jobs {
		if l.most[j.Task] > 0 {
			l.room[j.Task]--
		}
	}
}

// opened reports whether a task that the last claim left at its limit may have
// further jobs now.
func (l *limits) opened(held map[string]int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for task, room := range l.room {
		if room <= 0 && l.running[task]+held[task] < l.most[task] {
			return true
		}
	}
	return false
}
