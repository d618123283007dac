//go:build !unix

package main

import (
	"fmt"
	"os"
)

// Stopped processes and PostgreSQL's signals are what this program is made of.
func main() {
	fmt.Fprintln(os.Stderr, "chaos: only on Unix")
	os.Exit(2)
}
