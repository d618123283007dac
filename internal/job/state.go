package job

// State says what a job does or waits for at one moment, by the database's clock.
// Each job is in exactly one state.
type State string

// The states. The statements of db/queries/admin.sql define them.
const (
	// StateReady: nothing keeps a worker that has the task from starting the job.
	StateReady State = "ready"
	// StateScheduled: its time has not come, and it has not been tried yet.
	StateScheduled State = "scheduled"
	// StateRetrying: it has been tried, and its time has not come again.
	StateRetrying State = "retrying"
	// StateRunning: a worker has locked it, alive or not.
	StateRunning State = "running"
	// StateBlocked: its time has come, and its queue is locked by another job.
	StateBlocked State = "blocked"
	// StateFailed: it has used up its attempts, and nobody will run it.
	StateFailed State = "failed"
)

// States are all of them, in the order of a job's life.
var States = []State{StateScheduled, StateReady, StateBlocked, StateRunning, StateRetrying, StateFailed}
