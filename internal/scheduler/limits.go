package scheduler

import (
	"sync"

	"github.com/gworker/gworker/internal/job"
)

// limits keeps tasks from having more than so many jobs here at once. What
// counts is every job that this worker has claimed and whose handler has not
// returned yet: those that run, and those that wait for a slot or in the local queue. So
// a job that waits never waits for its task, and no other waits behind it.
type limits struct {
	most map[string]int // nil: no task has a limit

	mu       sync.Mutex
	running  map[string]int // that run or wait for a slot
	promised map[string]int // that claims under way may take

	// room is what the last claim was given for each task, less what it took.
	// Where that is 0, the database may have further jobs of the task. It
	// belongs to the loop.
	room map[string]int
}

func newLimits(most map[string]int) *limits {
	if len(most) == 0 {
		return &limits{}
	}
	return &limits{most: most, running: make(map[string]int, len(most)), promised: make(map[string]int), room: make(map[string]int, len(most))}
}

// none reports whether no task has a limit.
func (l *limits) none() bool { return l.most == nil }

// full reports whether the task is at its limit.
func (l *limits) full(task string) bool {
	most := l.most[task]
	if most == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running[task] >= most
}

// enter counts a job that runs, or waits for a slot.
func (l *limits) enter(task string) { l.add(task, 1) }

// leave counts a job that does no more.
func (l *limits) leave(task string) { l.add(task, -1) }

func (l *limits) add(task string, jobs int) {
	if l.most[task] == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[task] += jobs
}

// promise lists the tasks of which a claim may take jobs, and how many, until settle is
// told what it took. waiting counts the jobs in the local queue.
func (l *limits) promise(waiting map[string]int) (tasks []string, rooms []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for task, most := range l.most {
		room := max(0, most-l.running[task]-waiting[task]-l.promised[task])
		l.room[task] = room
		if room > 0 {
			l.promised[task] += room
			tasks, rooms = append(tasks, task), append(rooms, int32(room))
		}
	}
	return tasks, rooms
}

// settle notes what a claim took of what it was promised. Its jobs are counted elsewhere
// by then.
func (l *limits) settle(tasks []string, rooms []int32, took []*job.Claimed) {
	if l.none() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, task := range tasks {
		l.promised[task] -= int(rooms[i])
	}
	for _, j := range took {
		if l.most[j.Task] > 0 {
			l.room[j.Task]--
		}
	}
}

// opened reports whether a task that the last claim left at its limit may have
// further jobs now.
func (l *limits) opened(waiting map[string]int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for task, room := range l.room {
		if room <= 0 && l.running[task]+waiting[task]+l.promised[task] < l.most[task] {
			return true
		}
	}
	return false
}
