//go:build !unix

package main

import (
	"fmt"
	"os"
)

// The program stops processes and signals PostgreSQL, as only Unix allows.
func main() {
	fmt.Fprintln(os.Stderr, "chaos: only on Unix")
	os.Exit(2)
}
