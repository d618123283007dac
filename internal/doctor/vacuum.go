package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/elapsed"
	"github.com/gworker/gworker/internal/program"
)

// byName are the schema's tables in order.
func (c *checker) byName() []dbgen.DoctorTablesRow {
	var tables []dbgen.DoctorTablesRow
	for _, name := range slices.Sorted(maps.Keys(c.tables)) {
		tables = append(tables, c.tables[name])
	}
	return tables
}

// qualified is a name in the schema as SQL.
func (c *checker) qualified(name string) string {
	if strings.ToLower(name) == name && !strings.ContainsAny(name, ` "`) {
		return c.options.Schema.Quoted() + "." + name
	}
	return c.options.Schema.Quoted() + "." + identifier(name)
}

// command is a command line of the binary for this schema.
func (c *checker) command(words string) string {
	line := program.Name + " " + words
	if !c.options.Schema.IsDefault() {
		line += " --schema '" + strings.ReplaceAll(c.options.Schema.String(), "'", `'\''`) + "'"
	}
	return line
}

func checkDeadRows(_ context.Context, c *checker) (Finding, error) {
	found := Finding{Why: "Claims walk over dead rows until vacuum has removed them, and each job leaves some: the more there are, the slower is a claim."}
	var said []string
	for _, t := range c.byName() {
		severity := judgeDead(t.Live, t.Dead)
		if severity == OK {
			continue
		}
		found.Severity = max(found.Severity, severity)
		said = append(said, fmt.Sprintf("%s has %s, %s live ones, and was %s", t.Name, count(t.Dead, "dead row"), grouped(t.Live), vacuumed(t)))
		name := c.qualified(t.Name)
		found.Help = append(found.Help, "vacuum (verbose, analyze) "+name+";",
			"alter table "+name+" set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);")
	}
	if len(said) == 0 {
		jobs := c.tables[tableJobs]
		return ok(fmt.Sprintf("%s in %s; it was %s.", count(jobs.Dead, "dead row"), tableJobs, vacuumed(jobs))), nil
	}
	found.What = strings.Join(said, "; ") + "."
	found.Help = append(found.Help, "-- If vacuum says that rows cannot be removed yet, see old-transactions and what follows it.")
	return found, nil
}

func vacuumed(t dbgen.DoctorTablesRow) string {
	if t.Vacuumed < 0 {
		return "never vacuumed"
	}
	return "vacuumed " + age(elapsed.Seconds(t.Vacuumed)) + " ago"
}

// judgeDead judges a table's dead rows. Up to the number of live rows they are normal: that
// many jobs may have ended since the last vacuum.
func judgeDead(live, dead int64) Severity {
	switch {
	case dead <= live:
		return OK
	case dead >= tooManyDeadRows && dead >= 10*live:
		return Problem
	case dead >= manyDeadRows:
		return Warning
	}
	return OK
}

func checkBloat(_ context.Context, c *checker) (Finding, error) {
	found := Finding{Why: "Space once taken by a backlog stays in the table and its indexes. Scans, vacuum and backups go over it, and it fills the cache."}
	var said []string
	for _, t := range c.byName() {
		// Dead rows are another check's. Until the first vacuum, the statistics do not
		// say how many rows there are.
		rows := max(t.Live, t.Counted) + t.Dead
		if t.Vacuumed < 0 || t.Bytes < bloatBytes || rows*bloatPages >= t.Bytes/8192 {
			continue
		}
		found.Severity = Warning
		said = append(said, fmt.Sprintf("%s takes %s for %s", t.Name, size(t.Bytes), count(rows, "row")))
		found.Help = append(found.Help, "vacuum (full, analyze) "+c.qualified(t.Name)+"; -- locks the table while it runs; pg_repack does not")
	}
	if len(said) == 0 {
		return ok(fmt.Sprintf("%s takes %s.", tableJobs, size(c.tables[tableJobs].Bytes))), nil
	}
	found.What = strings.Join(said, "; ") + "."
	return found, nil
}
