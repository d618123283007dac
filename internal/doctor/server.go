package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
)

// endOfSupport is when the PostgreSQL project stops fixing a major version.
var endOfSupport = map[int]time.Time{
	12: time.Date(2024, time.November, 21, 0, 0, 0, 0, time.UTC),
	13: time.Date(2025, time.November, 13, 0, 0, 0, 0, time.UTC),
	14: time.Date(2026, time.November, 12, 0, 0, 0, 0, time.UTC),
	15: time.Date(2027, time.November, 11, 0, 0, 0, 0, time.UTC),
	16: time.Date(2028, time.November, 9, 0, 0, 0, 0, time.UTC),
	17: time.Date(2029, time.November, 8, 0, 0, 0, 0, time.UTC),
	18: time.Date(2030, time.November, 14, 0, 0, 0, 0, time.UTC),
}

func checkVersion(_ context.Context, c *checker) (Finding, error) {
	return judgeVersion(int(c.server.VersionNum), c.server.Version, time.UnixMicro(c.server.NowUs)), nil
}

func judgeVersion(number int, version string, now time.Time) Finding {
	const help = "Upgrade PostgreSQL to a supported major version: https://www.postgresql.org/support/versioning/"
	if number < 120000 {
		return Finding{
			Severity: Problem,
			What:     (&migrate.ServerVersionError{Number: number}).Error() + ".",
			Why:      "The schema uses what older servers do not have. Nothing else was checked.",
			Help:     []string{help},
		}
	}
	end, known := endOfSupport[number/10000]
	if known && now.After(end) {
		return Finding{
			Severity: Warning,
			What:     fmt.Sprintf("PostgreSQL %s is no longer supported: fixes ended on %s.", version, end.Format(time.DateOnly)),
			Why:      "Bugs that lose data, and security holes, are no longer fixed in it. gworker itself works on 12 and newer.",
			Help:     []string{help},
		}
	}
	return ok(fmt.Sprintf("PostgreSQL %s.", version))
}

func checkReadOnly(_ context.Context, c *checker) (Finding, error) {
	const why = "Workers can neither claim jobs nor store outcomes here."
	switch {
	case c.server.Standby:
		return Finding{Severity: Problem, What: "This server is a standby: it can only be read.", Why: why,
			Help: []string{"Connect to the primary; with several hosts in the connection string, add target_session_attrs=read-write."}}, nil
	case c.server.ReadOnly:
		return Finding{Severity: Problem, What: "Transactions are read-only by default for this role in this database.", Why: why,
			Help: []string{
				"alter role " + identifier(c.server.Role) + " reset default_transaction_read_only;",
				"alter database " + identifier(c.server.Database) + " reset default_transaction_read_only;",
			}}, nil
	}
	return ok("The server can be written to."), nil
}

func checkConnections(ctx context.Context, c *checker) (Finding, error) {
	row, err := get(ctx, c, (*dbgen.Queries).DoctorConnections)
	if err != nil {
		return Finding{}, err
	}
	free := c.number("max_connections") - c.number("superuser_reserved_connections") - c.number("reserved_connections")
	found := ok("")
	for _, limit := range []struct {
		of        string
		used, has int64
		help      string
	}{
		{"the server", row.ServerUsed, free, "alter system set max_connections = ...; -- needs a restart"},
		{"database " + c.server.Database, row.DatabaseUsed, row.DatabaseLimit,
			"alter database " + identifier(c.server.Database) + " connection limit ...;"},
		{"role " + c.server.Role, row.RoleUsed, row.RoleLimit, "alter role " + identifier(c.server.Role) + " connection limit ...;"},
	} {
		if limit.has <= 0 {
			continue // no limit
		}
		share := float64(limit.used) / float64(limit.has)
		text := fmt.Sprintf("%d of the %d connections of %s are in use.", limit.used, limit.has, limit.of)
		if share < manyConnections {
			if found.What == "" {
				found.What = text
			}
			continue
		}
		severity := Warning
		if share >= tooManyConnections {
			severity = Problem
		}
		if severity <= found.Severity {
			continue
		}
		found = Finding{Severity: severity, What: text,
			Why: "When none is left, workers cannot connect again after a lost connection, and new ones cannot start.",
			Help: []string{
				"select usename, application_name, state, count(*) from pg_stat_activity group by 1, 2, 3 order by 4 desc;",
				limit.help,
				"Give workers smaller pools (--max-pool-size), or put a pooler in between.",
			}}
	}
	return found, nil
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }
