// Command chaos breaks everything around gworker while it works, and then checks
// that no job was lost, none is stuck and none was run twice without a reason.
//
//	go run ./tests/chaos -duration 30m -seed 7
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
//	worker.go    such a process: a gworker whose task records each run
//	recorder.go  brings the records to the witness, those of several runs at once
//	monkey.go    picks faults from the seed; faults_*.go are the faults
//	proxy.go     stands between each worker and the database
//	cluster.go   a primary and a streaming standby, which take turns
//	witness.go   a second server, which nobody breaks, with the record of runs
//	settle.go    waits until all that was added has ended
//	verdict.go   the verdict, by the rules in rules.go, silence.go and holding.go
//	figures.go   what is counted
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
