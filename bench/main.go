package main

import (
	"fmt"
	"os"
)

const sideEnv = "GWORKER_BENCH_SIDE"

func main() {
	if os.Getenv(sideEnv) != "" {
		if err := side(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
}
