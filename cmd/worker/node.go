package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gworker/gworker/event"
)

// The command line of Node's graphile-worker is accepted: its options have the same effect
// here, even without a subcommand, or are refused with the reason.

// nodeNames are Node's names of flags that have other names here.
func nodeNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "connection" {
		name = "database-url"
	}
	return pflag.NormalizedName(name)
}

// nodeFlags are Node's options that are commands here, or do not exist.
type nodeFlags struct {
	schemaOnly bool
	cleanup    []string
	javascript string // -C
	watch      bool
}

// acceptNodeOptions adds Node's options to the command that runs jobs. They are
// hidden: docs/command-line.md has them.
func acceptNodeOptions(root, run *cobra.Command, shared *sharedFlags) {
	root.SetGlobalNormalizationFunc(nodeNames)
	var f nodeFlags
	flags := run.Flags()
	flags.BoolVar(&f.schemaOnly, "schema-only", false, `install or update the schema and end, as "worker migrate" does`)
	flags.StringArrayVar(&f.cleanup, "cleanup", nil, `clean the database and end, as "worker cleanup" does`)
	flags.StringVarP(&f.javascript, "graphile-config", "C", "", "cannot be used: a graphile.config is JavaScript")
	flags.BoolVarP(&f.watch, "watch", "w", false, "cannot be used, as in newer Node workers")
	for _, name := range []string{"schema-only", "cleanup", "graphile-config", "watch"} {
		flags.Lookup(name).Hidden = true
	}
	runJobs := run.RunE
	run.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd); err != nil {
			return usageError{command: cmd.CommandPath(), err: err}
		}
		switch {
		case f.schemaOnly:
			return migrateOnly(cmd.Context(), shared)
		case len(f.cleanup) > 0:
			return f.runCleanup(cmd)
		}
		return runJobs(cmd, args)
	}
	runByFlagsAlone(root, run)
}

// check refuses options that are not supported, and says what to use.
func (f nodeFlags) check(cmd *cobra.Command) error {
	once, err := cmd.Flags().GetBool("once")
	switch {
	case err != nil:
		return err
	case f.javascript != "" || cmd.Flags().Changed("graphile-config"):
		return errors.New("-C cannot be used: a graphile.config is JavaScript, which runs in Node's worker alone. Give its settings " +
			"as options or in a YAML file, --config (docs/command-line.md has a table), and write its tasks as files of the tasks folder")
	case f.watch:
		return errors.New("--watch cannot be used, as in newer Node workers: restart the worker when task files change, " +
			"for example with a file watcher")
	case f.schemaOnly && once:
		return errors.New("--once and --schema-only cannot both be given")
	case f.schemaOnly && len(f.cleanup) > 0:
		return errors.New("--cleanup and --schema-only cannot both be given")
	}
	_, err = f.cleanupTasks()
	return err
}

func migrateOnly(ctx context.Context, shared *sharedFlags) error {
	client, err := shared.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return migrateAndTell(ctx, client, shared)
}

// cleanupNames are the tasks of --cleanup.
var cleanupNames = []string{"GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"}

// cleanupTasks splits Node's comma-separated lists; the option can be repeated.
func (f nodeFlags) cleanupTasks() ([]string, error) {
	var tasks []string
	for _, list := range f.cleanup {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.TrimSpace(name)
			if !slices.Contains(cleanupNames, name) {
				return nil, fmt.Errorf("--cleanup names %q: it can be %s, or several with commas between them",
					name, strings.Join(cleanupNames, ", "))
			}
			tasks = append(tasks, name)
		}
	}
	return tasks, nil
}

// runCleanup runs the subcommand cleanup with the tasks. As in Node's worker, it keeps the
// identifiers of the tasks folder.
func (f nodeFlags) runCleanup(cmd *cobra.Command) error {
	tasks, err := f.cleanupTasks()
	if err != nil {
		return err
	}
	cleanup, _, err := cmd.Root().Find([]string{"cleanup"})
	if err != nil || cleanup.Name() != "cleanup" {
		return errors.New("this worker has no command cleanup")
	}
	cleanup.SetContext(cmd.Context())
	if folder := cmd.Flags().Lookup("tasks"); folder.Changed {
		if err := cleanup.Flags().Set("tasks", folder.Value.String()); err != nil {
			return fmt.Errorf("handing --tasks to cleanup: %w", err)
		}
	}
	return cleanup.RunE(cleanup, tasks)
}

// runByFlagsAlone makes a command line with flags and without a command run jobs, as with
// Node's worker. An empty command line prints help.
func runByFlagsAlone(root, run *cobra.Command) {
	help := root.RunE
	run.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if root.PersistentFlags().Lookup(flag.Name) != nil || flag.Name == "help" {
			return
		}
		hidden := *flag // with the same value: one of the two commands is used
		hidden.Hidden = true
		root.Flags().AddFlag(&hidden)
	})
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().NFlag() == 0 {
			return help(cmd, args)
		}
		return run.RunE(cmd, args)
	}
}

// quietSuccesses is Node's environment variable that keeps successes out of the log. As
// there, any value but the empty one counts.
const quietSuccesses = "NO_LOG_SUCCESS"

// withoutSuccesses passes on all events but the completions of jobs.
func withoutSuccesses(observe func(event.Event)) func(event.Event) {
	return func(e event.Event) {
		if _, success := e.(event.JobCompleted); !success {
			observe(e)
		}
	}
}
