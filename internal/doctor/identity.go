package doctor

import (
	"context"
	"fmt"

	"github.com/gworker/gworker/internal/dbgen"
)

func checkIdentities(ctx context.Context, c *checker) (Finding, error) {
	rows, err := getIn(ctx, c, (*dbgen.Queries).DoctorIdentities)
	if err != nil {
		return Finding{}, err
	}
	found := ok("No identity column has handed out a number yet.")
	var highest float64
	var said []string
	for _, r := range rows {
		if r.Last <= 0 || r.Used <= 0 {
			continue
		}
		share := float64(r.Used) / float64(r.Last)
		text := fmt.Sprintf("%s.%s has used %.3g %% of its %s", r.TableName, r.ColumnName, 100*share, count(r.Last, "number"))
		if share >= highest && len(said) == 0 {
			highest = share
			found.What = text + "; no identity column is further."
		}
		if share < muchIdentity {
			continue
		}
		severity := Warning
		if share >= tooMuchIdentity {
			severity = Problem
		}
		found.Severity = max(found.Severity, severity)
		said = append(said, text)
		table := c.qualified(r.TableName)
		found.Help = append(found.Help,
			fmt.Sprintf("select %s from %s order by %s; -- where are numbers free? Begin again there:", r.ColumnName, table, r.ColumnName),
			fmt.Sprintf("alter table %s alter column %s restart with ...;", table, r.ColumnName))
	}
	if len(said) == 0 {
		return found, nil
	}
	found.What = listed(said, "; ") + "."
	found.Why = "After the last number, no job of a new queue or task, or no job at all, can be added. Older schemas use up a number with every job " +
		"that is added, and so do Node's before revision 20 and Rust's before 21."
	found.Help = append(found.Help, c.command("migrate"))
	return found, nil
}
