// Command chaos breaks everything around gworker while it works, and then checks
// that no job was lost, none is stuck and none was run twice without a reason.
//
//	go run ./tests/chaos -duration 30m -seed 7
//	go run ./tests/chaos -duration 30m -rust 2                  # Rust workers take part
//	go run ./tests/chaos -jobs 1000000 -duration 1h -pause 1m   # a soak
//	GWORKER_CHAOS=7 go test ./tests/chaos        # the short form, for CI
//
// What comes in is a seed and a time; what goes out is a log of faults, figures,
// and a verdict, with exit status 1 if a rule was broken.
//
//	run.go       the order of things: set up, break, heal, drain, judge
//	load.go      adds jobs all the time, and remembers which adds committed
//	soak.go      adds a great number of small jobs instead, with -jobs
//	fleet.go     worker processes, started again when they die
//	worker.go    such a process: a gworker whose task records each run; tasks has its SQL tasks
//	nodeworker.go, rustworker.go   the workers of other runtimes, which -node and -rust choose
//	poison.go    jobs that are meant to harm: what their handlers end with, and what is stored
//	recorder.go  brings the records to the witness, those of several runs at once
//	monkey.go    picks faults from the seed; faults_*.go are the faults
//	proxy.go     stands between each worker and the database
//	cluster.go   a primary and a streaming standby, which take turns
//	witness.go   a second server, which nobody breaks, with the record of runs
//	settle.go    waits until all that was added has ended
//	verdict.go   the verdict, by the rules in rules.go, silence.go and holding.go
//	figures.go   what is counted
//
// The kinds of faults, which -faults chooses from:
//
//	kill freeze blink delay cut blackhole   of one worker, or of its network
//	hush        a worker is told to end while the database is silent to it: it is gone within
//	            the bound of a whole shutdown
//	terminate restart crash stall timeouts failover   of the server
//	limits      connection limit of the role or the database, and most sessions ended
//	idle        idle_session_timeout and idle_in_transaction_session_timeout of some 100 ms
//	rights      a right of the workers' role, or its log-in, is taken and given back. A worker
//	            may end of that, if the last line of its log says so.
//	ddl         vacuum full, reindex, alter table, indexes. No claim may be lost by it.
//	poison      errors and panics whose methods panic, exit, have no end or no text; payloads
//	            that panic. Each job fails with a given text, no other is disturbed.
//	refuse      a trigger is against the outcomes of some jobs, once or always. Likewise.
//	deallocate  SQL tasks that remove the prepared statements of their sessions. Each SQL job
//	            has its effect exactly once, and none fails of what a session has lost.
//	disk        the primary's disk is full, half of the times for its log too, so that it
//	            crashes. Takes the right to mount; otherwise left out, with a line in the log.
//	clock       the servers' clock steps by an hour, and back. Takes libfaketime, and only
//	            takes part if it is named: every look at the clock is slow then.
//
// What poison, refuse, deallocate and ddl do is no reason for any other job to run twice,
// to fail or to lose its lock; the others are reasons for what is said in silence.go and
// holding.go.
//
// Where the clock was ahead, what was written then has its time: jobs that failed wait for
// it, and the last heartbeat of a worker that died then is as young. After a step back the
// program moves both to the present, as an operator has to.
//
// What a failover is here: the old primary is made read-only first and the
// standby promoted then, so that nothing is lost which anybody was told. Two
// primaries that both take writes are left out: PostgreSQL itself tells a client
// that its commit is done, when it gives up waiting for the standby.
//
// The log names faults by their number in the sequence that the seed draws. When
// each one comes, and what it hits, depends on the machine as well: a seed that
// failed may have to be run a few times.
//
// The one thing not to break: the verdict rests on what was recorded outside of
// gworker - by handlers on the witness, by triggers on the queue, by the fault
// log - and never on what gworker says of itself.
package main
