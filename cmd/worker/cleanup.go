package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

func newCleanupCommand(shared *sharedFlags) *cobra.Command {
	var dryRun, asJSON bool
	var keep []string
	var tasks string
	cmd := &cobra.Command{
		Use:   "cleanup [TASK...]",
		Short: "Delete unused task identifiers and queues, and failed jobs",
		Long: `cleanup deletes what is no longer used. Its tasks are:

  GC_TASK_IDENTIFIERS      task identifiers that have no job
  GC_JOB_QUEUES            queues that have no job and are not locked
  DELETE_PERMAFAILED_JOBS  jobs that have permanently failed

Without any, it does the first two. It can run at any time.

Identifiers of the tasks folder, of registered workers and of --keep-task are
kept. Node's workers do not register, and older ones keep using the ids of
deleted task identifiers until they are restarted: name their tasks.`,
		Example: `  worker cleanup --dry-run
  worker cleanup DELETE_PERMAFAILED_JOBS
  worker cleanup GC_TASK_IDENTIFIERS --keep-task send_email --keep-task report`,
		RunE: func(cmd *cobra.Command, args []string) error {
			logger, err := shared.logger(cmd)
			if err != nil {
				return err
			}
			options := gworker.CleanupOptions{KeepTasks: keep, DryRun: dryRun}
			for _, arg := range args {
				options.Tasks = append(options.Tasks, gworker.CleanupTask(strings.ToUpper(strings.ReplaceAll(arg, "-", "_"))))
			}
			own, err := tasksToKeep(tasks, cmd.Flags().Changed("tasks"), logger)
			if err != nil {
				return err
			}
			options.KeepTasks = append(options.KeepTasks, own...)
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				result, err := client.Cleanup(cmd.Context(), options)
				// What was deleted before an error is gone, so print it.
				if err != nil && result.FailedJobs == 0 && len(result.Tasks)+len(result.Queues) == 0 {
					return err
				}
				if asJSON {
					return errors.Join(err, printJSON(shared.std.out, cleanedJSON(dryRun, result)))
				}
				printCleaned(shared.std.out, dryRun, result)
				return err
			})
		},
	}
	listVar(cmd.Flags(), &keep, "keep-task", "task identifier to keep")
	cmd.Flags().StringVar(&tasks, "tasks", "tasks", "folder of task files whose identifiers are kept")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and print what would be deleted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// tasksToKeep are the identifiers of a tasks folder. The default folder may be missing.
func tasksToKeep(dir string, asked bool, logger *zap.Logger) ([]string, error) {
	files := taskFlags{dir: dir, allowWritable: true} // no task of it runs
	loaded, err := files.load(logger)
	if !asked && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, gworker.ErrNoTasks)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(loaded))
	for i, task := range loaded {
		names[i] = task.Identifier()
	}
	return names, nil
}

func printCleaned(out io.Writer, dryRun bool, result gworker.CleanupResult) {
	did := "deleted"
	if dryRun {
		did = "would delete"
	}
	nothing := true
	say := func(n int, noun string, names []string) {
		if n == 0 {
			return
		}
		nothing = false
		terminal.Fprintf(out, "%s %s", did, counted(n, noun))
		for i, name := range names {
			if i == 20 {
				terminal.Fprintf(out, ", and %d more (--json has all)", len(names)-i)
				break
			}
			terminal.Fprintf(out, "%s%s", map[bool]string{true: ": ", false: ", "}[i == 0], cell(name, 60))
		}
		fmt.Fprintln(out)
	}
	say(int(result.FailedJobs), "permanently failed job", nil)
	say(len(result.Tasks), "task identifier", result.Tasks)
	say(len(result.Queues), "queue", result.Queues)
	if nothing {
		fmt.Fprintln(out, "nothing to delete")
	}
}

type cleanupJSON struct {
	DryRun     bool     `json:"dry_run"`
	FailedJobs int64    `json:"failed_jobs"`
	Tasks      []string `json:"task_identifiers"`
	Queues     []string `json:"queue_names"`
}

func cleanedJSON(dryRun bool, result gworker.CleanupResult) cleanupJSON {
	return cleanupJSON{
		DryRun: dryRun, FailedJobs: result.FailedJobs,
		Tasks: append([]string{}, result.Tasks...), Queues: append([]string{}, result.Queues...),
	}
}
