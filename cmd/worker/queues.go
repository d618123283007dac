package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

func newQueuesCommand(shared *sharedFlags) *cobra.Command {
	var asJSON bool
	var filter gworker.QueueFilter
	cmd := &cobra.Command{
		Use:   "queues [NAME...]",
		Short: "List named queues, who has locked them, and their jobs",
		Long: `queues prints named queues by name, 100 at most unless --limit says otherwise: who has
locked them, for how long, and their jobs by state. "worker list --help" explains
the states. The exit status is 1 if a named queue does not exist.`,
		Example: `  worker queues --locked
  worker queues 'user 7' --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return shared.withRows(cmd.Context(), func(client *gworker.Client) error {
				filter.Names = args
				page, err := client.Queues(cmd.Context(), filter)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(shared.std.out, jsonQueues(page))
				} else if len(page.Queues) > 0 || len(args) == 0 {
					err = printQueues(shared, page)
				}
				if err != nil {
					return err
				}
				return missingQueues(args, page, filter)
			})
		},
	}
	cmd.Flags().BoolVar(&filter.LockedOnly, "locked", false, "only queues that a worker has locked")
	cmd.Flags().IntVar(&filter.Limit, "limit", 0, fmt.Sprintf("most queues to print (default %d)", gworker.DefaultPageSize))
	cmd.Flags().StringVar(&filter.Cursor, "cursor", "", "continue where a listing ended")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the queues as JSON")
	cmd.ValidArgsFunction = completeQueues(shared)
	return cmd
}

// missingQueues is the error that names the queues which were asked for and do not exist. It
// is nil if a page or a filter may have left them out.
func missingQueues(names []string, page gworker.QueuePage, filter gworker.QueueFilter) error {
	if page.NextCursor != "" || filter.Cursor != "" || filter.LockedOnly {
		return nil
	}
	var missing []string
	for _, name := range names {
		if !slices.ContainsFunc(page.Queues, func(q gworker.QueueInfo) bool { return q.Name == name }) {
			missing = append(missing, strconv.Quote(name))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("no such queue: %s", strings.Join(missing, ", "))
}

func printQueues(shared *sharedFlags, page gworker.QueuePage) error {
	out := shared.std.out
	if len(page.Queues) == 0 {
		_, err := fmt.Fprintln(out, "no queues")
		return err
	}
	t := table{head: append([]string{"queue", "locked by", "for"}, countsHead...)}
	for _, q := range page.Queues {
		locked := ""
		if !q.LockedAt.IsZero() {
			locked = span(q.LockedFor)
		}
		t.add(append([]string{cell(q.Name, 40), cell(q.LockedBy, 60), locked}, countsCells(q.JobCounts, q.LongestWait)...)...)
	}
	if err := t.print(out); err != nil {
		return fmt.Errorf("printing queues: %w", err)
	}
	if page.NextCursor != "" {
		terminal.Fprintf(out, "\n%s; there are more: add --cursor %s\n", counted(len(page.Queues), "queue"), page.NextCursor)
	}
	return nil
}

type queuesJSON struct {
	Queues     []queueJSON `json:"queues"`
	NextCursor string      `json:"next_cursor,omitempty"`
}

type queueJSON struct {
	Name             string     `json:"queue_name"`
	LockedBy         string     `json:"locked_by,omitempty"`
	LockedAt         time.Time  `json:"locked_at,omitzero"`
	LockedForSeconds float64    `json:"locked_for_seconds,omitempty"`
	Jobs             countsJSON `json:"jobs"`
}

func jsonQueues(page gworker.QueuePage) queuesJSON {
	printed := queuesJSON{Queues: []queueJSON{}, NextCursor: page.NextCursor}
	for _, q := range page.Queues {
		printed.Queues = append(printed.Queues, queueJSON{
			Name: q.Name, LockedBy: q.LockedBy, LockedAt: q.LockedAt, LockedForSeconds: q.LockedFor.Seconds(),
			Jobs: jsonCounts(q.JobCounts, q.LongestWait),
		})
	}
	return printed
}
