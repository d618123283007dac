package doctor

import "time"

// The limits above which a check reports something. docs/doctor.md explains them; of two
// limits, the first is for a warning and the second for a problem.
const (
	// Transactions, and prepared ones, that hold back vacuum: a queue leaves a dead row
	// behind for each job, and claims have to skip these.
	oldTransaction     = 5 * time.Minute
	veryOldTransaction = time.Hour

	// The age of replication slots and standbys is known only in transactions.
	oldHorizon     = 1_000_000
	veryOldHorizon = 50_000_000

	// Dead rows of a queue's table, if there are more of them than live ones.
	manyDeadRows    = 50_000
	tooManyDeadRows = 5_000_000

	// A table is bloated if it has this size, and a live row only in every
	// bloatPages pages of 8 kB: of rows as large as can be, a page has four.
	bloatBytes = 64 << 20
	bloatPages = 4

	// Shares of the connections that workers could have.
	manyConnections    = 0.80
	tooManyConnections = 0.95

	// Shares of the numbers that an identity column has.
	muchIdentity    = 0.70
	tooMuchIdentity = 0.90

	// The clocks of client and server, beyond what the round trip explains.
	clockOff    = 2 * time.Second
	clockWayOff = time.Minute

	// Time-outs that are set, and shorter than this.
	shortStatementTimeout      = 10 * time.Second
	tooShortStatementTimeout   = time.Second
	shortIdleTransaction       = 10 * time.Second
	tooShortIdleTransaction    = time.Second
	shortIdleSession           = 5 * time.Minute
	tooShortIdleSession        = 10 * time.Second
	shortTransactionTimeout    = time.Minute
	tooShortTransactionTimeout = time.Second

	// A registered worker without a heartbeat, unless its metadata asks for more time.
	// Rust's workers write one every 30 s and get this long.
	staleWorker = 5 * time.Minute

	// A lock of a worker that should be registered and is not: at least as long as a
	// worker needs to register again after a mistaken sweep.
	unknownLock = time.Minute

	// The age at which every runtime presumes that a lock's worker is dead.
	expiredLock = 4 * time.Hour

	// A lock on a queue without a running job: claims and outcomes write both
	// in one statement, so a moment would do.
	idleQueueLock = time.Minute

	// How long the oldest runnable job has waited.
	longWait    = time.Minute
	tooLongWait = time.Hour

	// Permanently failed jobs stay in the table until a person decides.
	manyFailed = 100

	// How many things a finding names one by one.
	namedThings = 5
)
