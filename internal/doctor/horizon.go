package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
)

const whyHorizon = "Vacuum removes no row that was deleted after it began, in no table. Finished jobs and old versions of " +
	"locked ones pile up, and each claim walks over more of them."

func checkOldTransactions(ctx context.Context, c *checker) (Finding, error) {
	rows, err := get(ctx, c, (*dbgen.Queries).DoctorOldTransactions)
	if err != nil {
		return Finding{}, err
	}
	for i := range rows {
		if rows[i].Seconds >= 0 {
			rows[i].Seconds += c.options.aged.by.Seconds()
		}
		rows[i].Horizon += c.options.aged.transactions
	}
	found := Finding{Why: whyHorizon}
	var named []string
	for _, r := range rows {
		severity := byAge(elapsed.Seconds(r.Seconds), oldTransaction, veryOldTransaction)
		if r.Seconds < 0 {
			severity = byHorizon(r.Horizon)
		}
		if severity == OK {
			continue
		}
		found.Severity = max(found.Severity, severity)
		named = append(named, transactionText(r))
		if len(named) <= namedThings {
			found.Help = append(found.Help, fmt.Sprintf("select pg_terminate_backend(%d); -- %s", r.Pid, comment(r.Application)))
		}
	}
	if len(named) > 0 {
		found.What = fmt.Sprintf("%s back vacuum: %s.", plural(len(named), "old transaction holds", "old transactions hold"), listed(named, "; "))
		found.Help = append(found.Help, "-- For those that idle: alter role ... set idle_in_transaction_session_timeout = '5min';")
		return found, nil
	}
	hidden, err := get(ctx, c, (*dbgen.Queries).DoctorHiddenSessions)
	if err != nil {
		return Finding{}, err
	}
	if hidden > 0 {
		return Finding{
			Severity: Note,
			What:     fmt.Sprintf("No old transaction was found, but the role %s may not look into %s of other roles.", c.server.Role, count(hidden, "session")),
			Why:      "A transaction of theirs that holds back vacuum shows only once a million others have come after it.",
			Help:     []string{"grant pg_read_all_stats to " + identifier(c.server.Role) + ";"},
		}, nil
	}
	return ok("No old transaction holds back vacuum."), nil
}

func transactionText(r dbgen.DoctorOldTransactionsRow) string {
	parts := []string{fmt.Sprintf("pid %d", r.Pid)}
	for _, part := range []struct{ name, value string }{{"application", r.Application}, {"role", r.Role}} {
		if part.value != "" {
			parts = append(parts, part.name+" "+part.value)
		}
	}
	if r.State != "" {
		parts = append(parts, r.State)
	}
	if r.Seconds < 0 {
		return strings.Join(parts, ", ") + fmt.Sprintf(", for %s of others", count(r.Horizon, "transaction"))
	}
	return strings.Join(parts, ", ") + ", for " + age(elapsed.Seconds(r.Seconds))
}

func checkPreparedTransactions(ctx context.Context, c *checker) (Finding, error) {
	rows, err := get(ctx, c, (*dbgen.Queries).DoctorPreparedTransactions)
	if err != nil {
		return Finding{}, err
	}
	found := Finding{Why: whyHorizon + " A prepared transaction also keeps its locks, and survives restarts."}
	var named []string
	for _, r := range rows {
		held := elapsed.Seconds(r.Seconds) + c.options.aged.by
		severity := byAge(held, oldTransaction, veryOldTransaction)
		if severity == OK {
			continue
		}
		found.Severity = max(found.Severity, severity)
		named = append(named, fmt.Sprintf("%s of role %s, for %s", literal(r.Gid), r.Role, age(held)))
		if len(named) <= namedThings {
			found.Help = append(found.Help, "rollback prepared "+literal(r.Gid)+"; -- or commit prepared, as its transaction manager says")
		}
	}
	if len(named) == 0 {
		return ok("No old prepared transaction."), nil
	}
	found.What = fmt.Sprintf("%s nobody has ended: %s.", plural(len(named), "prepared transaction that", "prepared transactions that"), listed(named, "; "))
	return found, nil
}

func checkReplicationSlots(ctx context.Context, c *checker) (Finding, error) {
	rows, err := get(ctx, c, (*dbgen.Queries).DoctorReplicationSlots)
	if err != nil {
		return Finding{}, err
	}
	found := Finding{Why: whyHorizon}
	var named []string
	for _, r := range rows {
		r.Horizon += c.options.aged.transactions
		severity := byHorizon(r.Horizon)
		if severity == OK {
			continue
		}
		found.Severity = max(found.Severity, severity)
		state := "in use"
		if !r.Active {
			state = "not in use"
		}
		named = append(named, fmt.Sprintf("%s (%s, %s), by %s", r.Name, r.Type, state, count(r.Horizon, "transaction")))
		if !r.Active && len(found.Help) < namedThings {
			found.Help = append(found.Help, "select pg_drop_replication_slot("+literal(r.Name)+"); -- if it is no longer needed")
		}
	}
	if len(named) == 0 {
		return ok("No replication slot holds back vacuum."), nil
	}
	found.What = fmt.Sprintf("%s back vacuum: %s.", plural(len(named), "replication slot holds", "replication slots hold"), listed(named, "; "))
	found.Help = append(found.Help, "-- One in use: see that its consumer, and queries on its standby, keep up.")
	return found, nil
}

func checkStandbys(ctx context.Context, c *checker) (Finding, error) {
	rows, err := get(ctx, c, (*dbgen.Queries).DoctorStandbys)
	if err != nil {
		return Finding{}, err
	}
	found := Finding{Why: whyHorizon}
	var named []string
	for _, r := range rows {
		r.Horizon += c.options.aged.transactions
		severity := byHorizon(r.Horizon)
		if severity == OK {
			continue
		}
		found.Severity = max(found.Severity, severity)
		named = append(named, fmt.Sprintf("%s (pid %d), by %s", r.Application, r.Pid, count(r.Horizon, "transaction")))
	}
	if len(named) == 0 {
		return ok("No standby holds back vacuum."), nil
	}
	found.What = fmt.Sprintf("Queries on %s back vacuum: %s.", plural(len(named), "standby hold", "standbys hold"), listed(named, "; "))
	found.Help = []string{
		"-- On the standby:",
		"select pid, application_name, now() - xact_start from pg_stat_activity where xact_start is not null order by xact_start;",
		"alter system set hot_standby_feedback = off; -- its queries may then be cancelled instead",
	}
	return found, nil
}

func byAge(d, warning, problem time.Duration) Severity {
	switch {
	case d >= problem:
		return Problem
	case d >= warning:
		return Warning
	}
	return OK
}

func byHorizon(transactions int64) Severity {
	switch {
	case transactions >= veryOldHorizon:
		return Problem
	case transactions >= oldHorizon:
		return Warning
	}
	return OK
}
