package completer

import (
	"time"

	"github.com/gworker/gworker/internal/job"
)

// A Result is one run that is over.
type Result struct {
	Job      *job.Claimed
	Outcome  job.Outcome
	Duration time.Duration
	// Waited is how long the job could have run before, see job.Claimed.
	Waited time.Duration
	// unstarted says that it never began: the job waited, in the local queue or for a slot.
	Unstarted bool
	// unsure says that a try to write the outcome had an unknown end.
	Unsure bool
	// fateUnknown says that nobody knows what became of the transaction in which the
	// handler completed the job. If the row is there, it has not committed.
	fateUnknown bool
	// plain says that its texts are to be written in ASCII.
	plain bool
	// refused says that the database has refused the outcome in every form.
	refused bool
	// reported says of a lost one that its event was emitted.
	reported bool
	// keepQueue says that the queue's lock is given back by a statement of its own, after
	// the outcome.
	keepQueue bool
}
