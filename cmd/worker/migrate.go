package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/terminal"
)

func newMigrateCommand(shared *sharedFlags) *cobra.Command {
	var status, asJSON, noHistory bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Install the schema or bring it up to date",
		Long: `migrate installs the schema or brings it up to date, as "run" does when it
starts. Running it again changes nothing. With --status it changes nothing at
all: it prints each revision with the time it was applied, whether it is
breaking, which runtime's version it is, and what a run would do.

It also makes gworker's own tables of history next to the queue's, which the other
runtimes do not see; --no-history leaves that out.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && !status {
				return usageError{command: cmd.CommandPath(), err: errors.New("--json goes with --status")}
			}
			config := shared.clientConfig()
			config.NoHistory = noHistory
			client, err := gworker.NewClient(config)
			if err != nil {
				return err
			}
			defer client.Close()
			if status && asJSON {
				return printStatusJSON(cmd.Context(), client, shared)
			}
			if status {
				return printStatus(cmd.Context(), client, shared)
			}
			return migrateAndTell(cmd.Context(), client, shared)
		},
	}
	cmd.Flags().BoolVar(&status, "status", false, "print each revision and what a run would do, changing nothing")
	cmd.Flags().BoolVar(&noHistory, "no-history", false, "make no tables of history")
	cmd.Flags().BoolVar(&asJSON, "json", false, "with --status, print it as JSON")
	return cmd
}

func migrateAndTell(ctx context.Context, client *gworker.Client, shared *sharedFlags) error {
	applied := 0
	err := client.Migrate(ctx, func(e event.Event) {
		switch e := e.(type) {
		case event.RevisionApplied:
			applied++
			terminal.Fprintf(shared.std.out, "applied revision %d%s\n", e.Revision, ifBreaking(" (breaking)", e.Breaking))
		case event.HistoryInstalled:
			applied++
			terminal.Fprintf(shared.std.out, "made the tables of history (version %d)\n", e.Version)
		case event.SchemaWarning:
			terminal.Fprintf(shared.std.err, "worker: warning: %s\n", e.Message)
		}
	})
	if err != nil {
		return err
	}
	status, err := client.SchemaStatus(ctx)
	if err != nil {
		return err
	}
	if applied == 0 {
		fmt.Fprint(shared.std.out, "nothing to do: ")
	}
	terminal.Fprintf(shared.std.out, "schema %q is at revision %d\n", shared.schemaOrDefault(), status.Newest)
	return nil
}

func printStatus(ctx context.Context, client *gworker.Client, shared *sharedFlags) error {
	status, err := client.SchemaStatus(ctx)
	if err != nil {
		return err
	}
	out := shared.std.out
	if status.Installed {
		terminal.Fprintf(out, "schema %q is at revision %d\n\n", shared.schemaOrDefault(), status.Newest)
	} else {
		terminal.Fprintf(out, "schema %q is not installed\n\n", shared.schemaOrDefault())
	}
	if err := printRevisions(out, status.Revisions); err != nil {
		return fmt.Errorf("printing the status: %w", err)
	}
	terminal.Fprintf(out, "\n%s\n", whatARunWouldDo(status))
	return nil
}

type statusJSON struct {
	Schema    string         `json:"schema"`
	Installed bool           `json:"installed"`
	Revision  int            `json:"revision"`
	Pending   []int          `json:"pending"`
	Refusal   string         `json:"refusal,omitempty"`
	Missing   []string       `json:"missing_objects,omitempty"`
	Revisions []revisionJSON `json:"revisions"`
}

type revisionJSON struct {
	ID        int       `json:"id"`
	AppliedAt time.Time `json:"applied_at,omitzero"`
	Breaking  bool      `json:"breaking"`
	Lineage   string    `json:"lineage"`
	Pending   bool      `json:"pending"`
}

func printStatusJSON(ctx context.Context, client *gworker.Client, shared *sharedFlags) error {
	status, err := client.SchemaStatus(ctx)
	if err != nil {
		return err
	}
	printed := statusJSON{
		Schema: shared.schemaOrDefault(), Installed: status.Installed, Revision: status.Newest,
		Pending: append([]int{}, status.Pending()...), Missing: status.Missing,
	}
	if status.Refusal != nil {
		printed.Refusal = status.Refusal.Error()
	}
	for _, r := range status.Revisions {
		one := revisionJSON{ID: r.ID, Breaking: r.Breaking, Lineage: string(r.Lineage), Pending: r.Pending}
		if r.Recorded {
			one.AppliedAt = r.At
		}
		printed.Revisions = append(printed.Revisions, one)
	}
	return printJSON(shared.std.out, printed)
}

func printRevisions(out io.Writer, revisions []gworker.RevisionStatus) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "revision\tapplied\tbreaking\tlineage\ta run would")
	for _, r := range revisions {
		applied, would := "-", ""
		if r.Recorded {
			applied = r.At.Local().Format("2006-01-02 15:04:05 -0700")
		}
		switch {
		case r.Pending && r.Recorded:
			would = "apply it, for its effects are missing, and keep its row"
		case r.Pending:
			would = "apply it"
		}
		line := fmt.Sprintf("%d\t%s\t%s\t%s\t%s", r.ID, applied, ifBreaking("breaking", r.Breaking), r.Lineage, would)
		fmt.Fprintln(table, strings.TrimRight(line, "\t"))
	}
	return table.Flush()
}

func whatARunWouldDo(status gworker.SchemaStatus) string {
	pending := status.Pending()
	var locked *gworker.LockedJobsError
	switch {
	case errors.As(status.Refusal, &locked):
		return "A run would apply what comes before revision 11 and then refuse: " + status.Refusal.Error()
	case status.Refusal != nil:
		return "A run would refuse: " + status.Refusal.Error()
	case len(pending) == 0:
		return "A run would find nothing to do."
	case len(pending) == 1:
		return fmt.Sprintf("A run would apply revision %d.", pending[0])
	}
	return fmt.Sprintf("A run would apply revisions %d to %d.", pending[0], pending[len(pending)-1])
}

func ifBreaking(text string, breaking bool) string {
	if breaking {
		return text
	}
	return ""
}
