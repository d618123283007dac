// Command chaos breaks everything around gworker while it works, and then checks that no
// job was lost, none is stuck, and none ran twice without a reason.
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
//	poison.go    jobs whose handlers misbehave, and what is to be stored of them
//	recorder.go  writes the records to the oracle, those of several runs at once
//	monkey.go    picks faults from the seed; faults_*.go are the faults
//	proxy.go     stands between each worker and the database
//	cluster.go   a primary and a streaming standby, which take turns
//	oracle.go    a second server, which no fault touches, with the record of runs
//	settle.go    waits until all that was added has ended
//	verdict.go   the verdict, by the rules in rules.go, silence.go and holding.go
//	figures.go   what is counted
//
// The kinds of faults, which -faults chooses from:
//
//	kill freeze blink delay cut blackhole   of one worker, or of its network
//	hush        a worker is told to end while the database does not answer it: it has ended
//	            within the bound of a whole shutdown
//	terminate restart crash stall timeouts failover   of the server
//	limits      connection limit of the role or the database, and most sessions ended
//	idle        idle_session_timeout and idle_in_transaction_session_timeout of some 100 ms
//	rights      a right of the workers' role, or its log-in, is taken and given back. A worker
//	            may end of that, if the last line of its log says so.
//	ddl         vacuum full, reindex, alter table, indexes. No claim may be lost by it.
//	poison      errors and panics whose methods panic, exit, do not return or have no text;
//	            payloads that panic. Each job fails with a given text, and others go on.
//	refuse      a trigger refuses the outcomes of some jobs, once or always. Likewise.
//	deallocate  SQL tasks that remove the prepared statements of their sessions. Each SQL job
//	            has its effect exactly once, and none fails because of the lost statements.
//	disk        the primary's disk is full; half the time its log is on that disk too, so
//	            that it crashes. Needs the right to mount; left out without it, with a line
//	            in the log.
//	clock       the servers' clock steps by an hour, and back. Needs libfaketime, and is left
//	            out unless it is named: reading the clock is slow then.
//
// No other job may run twice, fail or lose its lock because of poison, refuse, deallocate
// and ddl. What the other faults excuse is in silence.go and holding.go.
//
// Times that were written while the clock was ahead lie in the future afterwards: failed
// jobs wait for them, and a worker that died then has a heartbeat from the future. After a
// step back the program moves both to the present, as an operator has to.
//
// A failover makes the old primary read-only before it promotes the standby, so that no
// acknowledged commit is lost. Two primaries that both accept writes are left out:
// PostgreSQL itself acknowledges a commit when it gives up waiting for the standby.
//
// The log names faults by their number in the sequence that the seed draws. When
// each one comes, and what it hits, depends on the machine as well: a seed that
// failed may have to be run a few times.
//
// The one thing not to break: the verdict rests on what was recorded outside of
// gworker (by handlers on the oracle, by triggers on the queue, by the fault log) and
// never on what gworker says of itself.
package main
