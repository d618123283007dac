// Command build builds the Rust programs of the interop tests into their cache, so
// that no test has to wait for it.
//
// With -available it builds nothing: it only tells, by its exit status, whether the
// machine has a cargo that is new enough.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/gworker/gworker/tests/interop/rust"
)

func main() {
	available := flag.Bool("available", false, "only tell whether cargo is new enough")
	flag.Parse()
	if *available {
		if err := rust.Available(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	for _, v := range rust.Versions {
		program, err := rust.Build(v)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(program)
	}
}
