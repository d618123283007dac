package main

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gworker/gworker/internal/program"
)

// defaultProgram is the name in the texts of this package, and for a file whose own name
// cannot be used.
const defaultProgram = "worker"

var plainProgram = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// programName is the name of a program that was started by this path.
func programName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".exe")
	if !plainProgram.MatchString(name) || strings.HasSuffix(name, ".test") {
		return defaultProgram
	}
	return name
}

// useProgramName puts the program's name in the help of a command and those below it.
func useProgramName(root *cobra.Command) {
	if program.Name == defaultProgram {
		return
	}
	var names []string
	for _, cmd := range root.Commands() {
		names = append(names, regexp.QuoteMeta(cmd.Name()))
	}
	mention := regexp.MustCompile(`\bworker (` + strings.Join(names, "|") + `)\b`)
	rename := func(text string) string { return mention.ReplaceAllString(text, program.Name+" $1") }
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Short, cmd.Long, cmd.Example = rename(cmd.Short), rename(cmd.Long), rename(cmd.Example)
		flags := func(flag *pflag.Flag) { flag.Usage = rename(flag.Usage) }
		cmd.LocalFlags().VisitAll(flags)
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
}
