//go:build unix

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.uber.org/goleak"
)

func main() {
	if os.Getenv(processEnv) != "" {
		os.Exit(workerProcess())
	}
	o := defaults()
	kinds := flag.String("faults", "", "only these kinds of faults, separated by commas; all: "+strings.Join(faultKinds(), ","))
	flag.DurationVar(&o.Duration, "duration", o.Duration, "how long to break things")
	flag.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "what the faults are drawn from")
	flag.IntVar(&o.Workers, "workers", o.Workers, "gworker processes")
	flag.BoolVar(&o.Node, "node", o.Node, "run a Node worker, too, if npm is there")
	flag.IntVar(&o.Rust, "rust", o.Rust, "Rust workers to run, too; cargo has to be there")
	flag.IntVar(&o.Rate, "rate", o.Rate, "jobs to add each second")
	flag.IntVar(&o.Jobs, "jobs", o.Jobs,
		"a soak: add this many small jobs as fast as they are done, at most for -duration, and look at memory and connections")
	flag.DurationVar(&o.Pause, "pause", o.Pause, "longest time between two faults")
	flag.StringVar(&o.Logs, "logs", o.Logs, "keep the logs of all processes in this folder")
	flag.Parse()
	if *kinds != "" {
		o.Faults = strings.Split(*kinds, ",")
	}
	if err := o.check(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	v, err := run(ctx, o, func(line string) { fmt.Println(line) })
	stop()
	signal.Reset()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos: the run itself failed:", err)
		os.Exit(2)
	case v.failed():
		os.Exit(1)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: goroutines are left:", err)
		os.Exit(1)
	}
}
