package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
)

func newGrantCommand(shared *sharedFlags) *cobra.Command {
	var o gworker.GrantOptions
	cmd := &cobra.Command{
		Use:   "grant {producer|worker|reader} ROLE",
		Short: "Give a role the rights that it needs, and no more",
		Long: `grant lets a role work with a queue that it does not own. The role must exist, and
the user who grants must own the schema.

  producer  adds jobs, by clients of any runtime or the SQL functions
  worker    runs jobs: "worker run" and everything that workers do, except migrations
  reader    sees jobs, queues and workers, without payloads unless --payloads is given

It makes grants and policies of row level security, and changes nothing else of the
schema. Granting again changes nothing; a role can have several kinds.`,
		Example: `  worker grant producer web
  worker grant reader "On Call" --payloads
  worker grant worker jobs --dry-run | psql`,
		Args: twoRights,
	}
	cmd.Flags().BoolVar(&o.Payloads, "payloads", false, "let a reader see payloads too")
	cmd.RunE = changeRights(shared, &o, "granted", "to", (*gworker.Client).Grant)
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "print the SQL, for psql, and change nothing")
	return cmd
}

func newRevokeCommand(shared *sharedFlags) *cobra.Command {
	var o gworker.GrantOptions
	cmd := &cobra.Command{
		Use:   "revoke {producer|worker|reader} ROLE",
		Short: "Take from a role what grant has given it",
		Long: `revoke takes back the rights and policies that "worker grant" has given a role. What
the role needs for another kind that it has stays.`,
		Example: "  worker revoke producer web",
		Args:    twoRights,
	}
	cmd.RunE = changeRights(shared, &o, "revoked", "from", (*gworker.Client).Revoke)
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "print the SQL, for psql, and change nothing")
	return cmd
}

func twoRights(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usageError{command: cmd.CommandPath(), err: fmt.Errorf(
			"give producer, worker or reader, and the name of a role: %d arguments were given", len(args))}
	}
	return nil
}

func changeRights(
	shared *sharedFlags, o *gworker.GrantOptions, done, preposition string,
	change func(*gworker.Client, context.Context, gworker.Rights, string, gworker.GrantOptions) (string, error),
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := shared.client()
		if err != nil {
			return err
		}
		defer client.Close()
		sql, err := change(client, cmd.Context(), gworker.Rights(args[0]), args[1], *o)
		if err != nil {
			return err
		}
		if o.DryRun {
			_, err = fmt.Fprint(shared.std.out, sql)
			return err
		}
		_, err = fmt.Fprintf(shared.std.out, "%s the rights of a %s %s role %q\n", done, args[0], preposition, args[1])
		return err
	}
}
