package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/terminal"
)

// stdio is where a command reads and writes. All output with texts from outside goes through
// the Fprintf of package terminal, which escapes them.
type stdio struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// execute runs the command line and returns the exit status.
func execute(ctx context.Context, args []string, std stdio) int {
	std.out, std.err = terminal.NewWriter(std.out), terminal.NewWriter(std.err)
	root := newRoot(std)
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	terminal.Fprintf(std.err, "%s: %s\n", program.Name, explain(err))
	return exitStatus(err)
}

func newRoot(std stdio) *cobra.Command {
	shared := &sharedFlags{std: std}
	root := &cobra.Command{
		Use:     program.Name,
		Version: versionText(),
		Short:   "Run Graphile Worker jobs from PostgreSQL",
		Long: program.Name + ` runs jobs from a Graphile Worker queue in PostgreSQL, side by side with
Node and Rust Graphile Workers if there are any.

Try "worker dev" first: it needs no set-up. Options without a command mean "run",
and those of Node's graphile-worker are understood.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := shared.settings.read(cmd); err != nil {
				return err
			}
			return refuseEmpty(cmd, args)
		},
	}
	root.SetVersionTemplate(program.Name + " {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{command: cmd.CommandPath(), err: err}
	})
	shared.register(root)
	run := newRunCommand(shared)
	root.AddCommand(
		run, newDevCommand(shared), newMigrateCommand(shared),
		newAddCommand(shared), newCrontabCommand(shared), newDoctorCommand(shared),
		newSweepCommand(shared), newVersionCommand(shared),
		newGrantCommand(shared), newRevokeCommand(shared),
	)
	addAdminCommands(root, shared)
	acceptNodeOptions(root, run, shared)
	useProgramName(root)
	return root
}

// noArgs refuses arguments as a usage error; arguments of the root command are misspelt
// subcommands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if strings.ContainsAny(args[0], "=@") || strings.Contains(args[0], "://") {
		// Probably a connection string, or a part of one.
		return usageError{command: cmd.CommandPath(), err: errors.New("unexpected argument: a connection string goes after -c, quoted")}
	}
	if !cmd.HasParent() {
		return usageError{command: cmd.CommandPath(), err: fmt.Errorf("unknown command %q", args[0])}
	}
	return usageError{command: cmd.CommandPath(), err: fmt.Errorf("unexpected argument %q", args[0])}
}

// mayBeEmpty are the flags whose empty value means the same as no flag: the first page of a
// listing, and lists and addresses of workers that may have none. --cleanup has a better
// error of its own.
var mayBeEmpty = []string{"cursor", "forbidden-flags", "accepted-flags", "listen-database-url", "cleanup"}

// refuseEmpty refuses flags with an empty value: probably a variable of the caller's is not
// set. If the flag were ignored, a job would be added without its key, all jobs would be
// listed and then changed, or another database would be used.
func refuseEmpty(cmd *cobra.Command, _ []string) (err error) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if err == nil && !slices.Contains(mayBeEmpty, flag.Name) && isEmpty(flag.Value) {
			err = usageError{command: cmd.CommandPath(), err: fmt.Errorf("--%s is empty: give a value, or leave it out", flag.Name)}
		}
	})
	return err
}

// isEmpty reports whether a flag has an empty value.
func isEmpty(value pflag.Value) bool {
	switch value := value.(type) {
	case *list:
		return slices.Contains(*value, "")
	case pflag.SliceValue:
		return slices.Contains(value.GetSlice(), "")
	}
	return value.String() == ""
}
