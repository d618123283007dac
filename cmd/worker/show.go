package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/program"
	"github.com/gworker/gworker/internal/terminal"
)

func newShowCommand(shared *sharedFlags) *cobra.Command {
	var keys []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID...",
		Short: "Show everything about a job",
		Long: `show prints jobs whole, with payload and last error. With --json it prints one
object per line. The exit status is 1 if there is no such job: completed
jobs are not kept.`,
		Example: `  worker show 17
  worker show --key 'reminder of user 7' --json | jq .payload`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := idsOf(args, shared.std.in)
			if err == nil && len(args)+len(keys) == 0 {
				err = errors.New("name the ids of the jobs, or their keys with --key")
			}
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				var found []*gworker.JobInfo
				var missing []string
				keep := func(name string, job *gworker.JobInfo, err error) error {
					switch {
					case errors.Is(err, gworker.ErrJobNotFound):
						missing = append(missing, name)
					case err != nil:
						return err
					default:
						found = append(found, job)
					}
					return nil
				}
				for _, id := range ids {
					job, err := client.GetJob(cmd.Context(), id)
					if err := keep(fmt.Sprint(id), job, err); err != nil {
						return err
					}
				}
				for _, key := range keys {
					job, err := client.GetJobByKey(cmd.Context(), key)
					if err := keep(fmt.Sprintf("%q", key), job, err); err != nil {
						return err
					}
				}
				for i, job := range found {
					if asJSON {
						err = printJSON(shared.std.out, jsonJobInfo(job))
					} else {
						err = printJob(shared.std.out, job, i > 0)
					}
					if err != nil {
						return err
					}
				}
				if len(missing) > 0 {
					return fmt.Errorf("no such job (completed jobs are deleted): %s", strings.Join(missing, ", "))
				}
				return nil
			})
		},
	}
	listVar(cmd.Flags(), &keys, "key", "job key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the jobs as JSON, one per line")
	cmd.ValidArgsFunction = completeJobIDs(shared)
	return cmd
}

func printJob(out io.Writer, job *gworker.JobInfo, apart bool) error {
	var b strings.Builder
	if apart {
		b.WriteByte('\n')
	}
	terminal.Fprintf(&b, "job %d\n", job.ID)
	line := func(name, value string) {
		if value != "" {
			terminal.Fprintf(&b, "  %-12s %s\n", name, value)
		}
	}
	line("state", string(job.State))
	line("task", job.Task)
	line("queue", job.Queue)
	line("key", job.Key)
	line("flags", strings.Join(job.Flags, ", "))
	line("priority", fmt.Sprint(job.Priority))
	if job.State == gworker.StateFailed {
		line("run at", fmt.Sprintf("never: it has used up its attempts; \"%s retry %d\" runs it again", program.Name, job.ID))
	} else {
		line("run at", absolute(job.RunAt, job.ReadAt))
	}
	line("attempts", fmt.Sprintf("%d of %d", job.Attempts, job.MaxAttempts))
	line("created", absolute(job.CreatedAt, job.ReadAt))
	line("changed", absolute(job.UpdatedAt, job.ReadAt))
	if job.Revision > 0 {
		line("revision", fmt.Sprintf("%d, as often was it added again with its key", job.Revision))
	}
	if job.State == gworker.StateRunning {
		line("locked by", job.LockedBy)
		line("locked at", absolute(job.LockedAt, job.ReadAt))
	}
	if job.QueueLockedBy != "" && job.State != gworker.StateRunning {
		line("queue locked", fmt.Sprintf("by %s since %s", job.QueueLockedBy, absolute(job.QueueLockedAt, job.ReadAt)))
	}
	if job.LastError != "" {
		b.WriteString("  last error\n" + indented(job.LastError))
	}
	b.WriteString("  payload\n" + indented(pretty(job.Payload)))
	_, err := io.WriteString(out, b.String())
	return err
}

// pretty is indented JSON, or the text if it is not valid JSON.
func pretty(payload json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, payload, "", "  ") != nil {
		return string(payload)
	}
	return b.String()
}

// indented is a text from outside, on separate indented lines.
func indented(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(terminal.Block(text), "\n"), "\n", "\n    ") + "\n"
}
