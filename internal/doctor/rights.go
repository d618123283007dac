package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/program"
)

func checkRights(ctx context.Context, c *checker) (Finding, error) {
	rights, err := getIn(ctx, c, (*dbgen.Queries).DoctorRights)
	if err != nil {
		return Finding{}, err
	}
	functions, err := getIn(ctx, c, (*dbgen.Queries).DoctorFunctions)
	if err != nil {
		return Finding{}, err
	}
	role, schema := identifier(c.server.Role), c.options.Schema.Quoted()
	var lacks, help []string
	if !rights.Usage {
		lacks = append(lacks, "usage of the schema")
		help = append(help, "grant usage on schema "+schema+" to "+role+";")
	}
	before := len(lacks)
	for _, t := range c.byName() {
		if missing := missingRights(t); len(missing) > 0 {
			lacks = append(lacks, strings.Join(missing, ", ")+" on "+t.Name)
		}
	}
	if len(lacks) > before {
		help = append(help, "grant select, insert, update, delete on all tables in schema "+schema+" to "+role+";")
	}
	before = len(lacks)
	for _, f := range functions {
		if !f.MayExecute {
			lacks = append(lacks, "execute on function "+f.Name)
		}
	}
	if len(lacks) > before {
		help = append(help, "grant execute on all functions in schema "+schema+" to "+role+";")
	}
	if len(lacks) == 0 {
		return ok(fmt.Sprintf("Role %s has the rights that a worker needs.", c.server.Role)), nil
	}
	help = append(help, "-- Or connect as the schema's owner, or give the role a worker's rights ("+program.Name+" grant worker), which includes row-security.")
	return Finding{
		Severity: Problem,
		What:     fmt.Sprintf("Role %s lacks rights: %s.", c.server.Role, listed(lacks, "; ")),
		Why:      "Statements of workers and clients fail with SQLSTATE 42501. What cannot be read was not checked either.",
		Help:     help,
	}, nil
}

// missingRights are those that a worker needs and the role does not have. Of the
// ledger it only reads.
func missingRights(t dbgen.DoctorTablesRow) []string {
	private := strings.HasPrefix(t.Name, "_private_")
	var missing []string
	for _, r := range []struct {
		name        string
		has, needed bool
	}{
		{"select", t.MaySelect, private || t.Name == "migrations"},
		{"insert", t.MayInsert, private},
		{"update", t.MayUpdate, private},
		{"delete", t.MayDelete, private},
	} {
		if r.needed && !r.has {
			missing = append(missing, r.name)
		}
	}
	return missing
}

func checkRowSecurity(_ context.Context, c *checker) (Finding, error) {
	var hidden []string
	for _, t := range c.byName() {
		if t.Secured {
			hidden = append(hidden, t.Name)
		}
	}
	if len(hidden) == 0 {
		return ok(fmt.Sprintf("Role %s sees all rows.", c.server.Role)), nil
	}
	return Finding{
		Severity: Problem,
		What:     fmt.Sprintf("Row level security hides rows from role %s in %s.", c.server.Role, strings.Join(hidden, ", ")),
		Why: "No policy lets the role read the private tables, and it is neither their owner nor has bypassrls: it sees no job. " +
			"What the rows would tell was not checked.",
		Help: []string{
			"-- Connect as the schema's owner, or give the role a worker's or a reader's rights (" + program.Name + " grant), or:",
			"alter role " + identifier(c.server.Role) + " bypassrls;",
		},
	}, nil
}
