// Package recovery puts the jobs of dead workers back into the queue, and keeps this
// worker's heartbeat. It runs apart from the flow of jobs, on its own timers:
//
//	heartbeat.go   registers the worker, keeps its heartbeat, and finds out when
//	               another worker has declared it dead
//	lockwatch.go   finds running jobs whose locks were taken, and cancelled ones
//	sweeper.go     when to sweep, and when to reset locks older than 4 hours
//	idlepoll.go    lets the polls of an idle worker do what is due of this
//	deadline.go    a time that its own goroutine and a poll share
//	sweep.go       one sweep: one transaction, under the lock that Rust's workers use
//	salvage.go     leaves out the rows whose change the database refuses
//	deadworkers.go which lock holders are presumed dead
//	decide.go      what becomes of each of their jobs
//	runtime.go     tells a worker's runtime by its id
//
// What comes in is the worker's id, its running jobs and a pool; what goes out
// is statements and events.
//
// The one thing not to break: a job of a healthy worker, of any runtime, is never given to
// another. So the holder of a lock is presumed dead only if it had promised heartbeats and
// they stopped. A registered worker is dead when its last heartbeat is older than both its
// own bound and ours. A holder that is not registered is dead only if workers of its kind
// always register. Node's never do. Rust's do if they are configured to, which is assumed
// while any of them is registered. Other locks are freed after 4 hours, as by every
// Graphile Worker.
//
// A recovered job gets its attempt back. So that a job that kills its workers does not do
// so forever, its last_error counts its recoveries, where people can see it; a failure with
// another error uses up an attempt and restarts the count. After max_attempts starts
// (attempts and recoveries together) a job is not tried again. The sweep sees to that
// itself, because what the schema's own function does with the attempts of a job without a
// key differs between revisions and between the runtimes' migrations.
package recovery

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// The defaults of Config.
const (
	DefaultHeartbeatInterval   = 10 * time.Second
	DefaultSweepInterval       = 30 * time.Second
	DefaultStaleAfter          = 60 * time.Second
	DefaultResilientMultiplier = 3.0
)

// DefaultResilientFlag is the flag that Rust's workers know, too.
const DefaultResilientFlag = "infrastructure_resilient"

// The prefixes of the ids that the runtimes write into locked_by.
const (
	// OwnPrefix begins the id of a worker that registers.
	OwnPrefix = "gworker_"
	// UnregisteredPrefix begins the id of one that does not register, and that no
	// gworker therefore declares dead.
	UnregisteredPrefix = "gworker_unregistered_"

	rustPrefix = "graphile_worker_"
)

var nodePrefixes = []string{"pool-", "otpool-", "worker-"}

// rustStaleAfter is how long a Rust worker may be silent: its default.
const rustStaleAfter = 5 * time.Minute

// ErrJobLost is the cause of a job's context that ends because this worker no longer has
// the job's lock.
var ErrJobLost = job.ErrLost

// Action is what becomes of a dead worker's job.
type Action uint8

const (
	// Recover puts the job back with its attempt restored.
	Recover Action = iota
	// Reschedule puts it back with the RunAt and Attempts of the decision.
	Reschedule
	// Fail counts the attempt as failed: the job is tried again after its
	// backoff, if it has an attempt left.
	Fail
	// Skip leaves the job locked; the next sweep asks again.
	Skip
)

func (a Action) String() string {
	switch a {
	case Recover:
		return "recover"
	case Reschedule:
		return "reschedule"
	case Fail:
		return "fail"
	case Skip:
		return "skip"
	}
	return "unknown"
}

// Decision says what becomes of one job. The zero value recovers it.
type Decision struct {
	Action Action
	// RunAt is when a rescheduled job runs, in the years 1 to 9999; the zero time
	// means at once.
	RunAt time.Time
	// Attempts is how many attempts a rescheduled job has had, 0 to 32767.
	Attempts int
	// Reason becomes the last_error of a job that fails or is rescheduled. ""
	// means that the worker was interrupted. It is cut at 64 KiB; what is not
	// UTF-8, and NUL, becomes U+FFFD. What the database's encoding cannot hold is
	// stored in escapes, such as \u65e5.
	Reason string
}

// Job is a job whose worker was declared dead.
type Job struct {
	ID          int64
	Task        string
	Queue       string
	Key         string
	WorkerID    string // the holder of its lock
	LockedAt    time.Time
	LockedFor   time.Duration // by the database's clock
	RunAt       time.Time
	Attempts    int // with the one that was interrupted
	MaxAttempts int
	LastError   string
	Flags       []string
	// Cancelled says that the job was cancelled: it stays failed, and LastError is
	// the reason.
	Cancelled bool
	// Recoveries is how often in a row the job was recovered before.
	Recoveries int
}

// retired says that the job may have been replaced or removed by its key while
// it ran, or had its last attempt anyway: it must not come back.
func (j *Job) retired() bool { return j.Key == "" && j.Attempts >= j.MaxAttempts }

// starts is how often the job has been started, as far as its row shows.
func (j *Job) starts() int { return j.Attempts + j.Recoveries }
