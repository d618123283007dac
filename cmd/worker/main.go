// Command worker runs Graphile Worker jobs from a PostgreSQL database.
//
// Each subcommand is a file. They share flags.go (connection, schema), logging.go, and
// exit.go (the exit status, and the one line that says why). The work itself is in
// package gworker.
package main

import (
	"context"
	"os"
	_ "time/tzdata" // for the time zones of crontabs, on machines without any

	"github.com/gworker/gworker/internal/program"
)

func main() {
	program.Name = programName(os.Args[0])
	if isInit() {
		os.Exit(supervise(os.Environ()))
	}
	os.Exit(execute(context.Background(), os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
