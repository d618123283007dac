package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
)

// checkSearchPath looks for schemas in which other roles can create functions or operators
// that a call without an exact match in pg_catalog would find first. gworker's statements
// and functions make no such calls. Those of other runtimes do.
func checkSearchPath(ctx context.Context, c *checker) (Finding, error) {
	creators, err := getIn(ctx, c, (*dbgen.Queries).DoctorCreators)
	if err != nil || len(creators) == 0 {
		return ok("Only their owners may create in schemas."), err
	}
	searched, err := c.searched(ctx)
	if err != nil {
		return Finding{}, err
	}
	f, err := c.functions(ctx)
	if err != nil {
		return Finding{}, err
	}
	// That is the default of PostgreSQL 12 to 14, so it is a note if all functions are
	// gworker's.
	severity, why := Note, ""
	if foreign := f.others + len(f.changed); foreign > 0 {
		severity = Warning
		why = fmt.Sprintf(" So may %s of the schema that %s not from this version of gworker.",
			plural(foreign, "function", "functions"), isOrAre(foreign))
	}
	var remarks []remark
	for _, name := range searched {
		var roles, help []string
		for _, c := range creators {
			if c.SchemaName != name {
				continue
			}
			if c.Role == "" {
				roles = append(roles, "every role")
				help = append(help, "revoke create on schema "+identifier(name)+" from public;")
				continue
			}
			roles = append(roles, "role "+c.Role)
			help = append(help, "revoke create on schema "+identifier(name)+" from "+identifier(c.Role)+";")
		}
		if len(roles) > 0 {
			remarks = append(remarks, remark{severity, fmt.Sprintf("Schema %s is in the search path, and %s may create in it.",
				name, listed(roles, ", ")), help})
		}
	}
	return together(remarks, "Who may create there can make functions and operators that SQL finds before those that it means, and so run code "+
		"as whoever runs that SQL. gworker's own statements call nothing there; SQL tasks, triggers and other programs may."+why,
		ok("Only their owners may create in the schemas of the search path.")), nil
}

// searched are the schemas of this session's search path, and of those that are set for
// others that use the queue.
func (c *checker) searched(ctx context.Context) ([]string, error) {
	names, err := get(ctx, c, (*dbgen.Queries).DoctorSearchPath)
	if err != nil {
		return nil, err
	}
	set, err := c.roleSettings(ctx, "search_path")
	if err != nil {
		return nil, err
	}
	for _, s := range set {
		for _, name := range pathNames(s.Value) {
			if name == "$user" {
				name = s.Role
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// pathNames are the names in a search_path, as PostgreSQL reads them.
func pathNames(path string) []string {
	var names []string
	for path = strings.TrimSpace(path); path != ""; path = strings.TrimSpace(path) {
		var name strings.Builder
		if rest, quoted := strings.CutPrefix(path, `"`); quoted {
			for {
				part, after, _ := strings.Cut(rest, `"`)
				name.WriteString(part)
				doubled := false
				if rest, doubled = strings.CutPrefix(after, `"`); !doubled {
					break
				}
				name.WriteByte('"')
			}
			_, path, _ = strings.Cut(rest, ",")
		} else {
			var plain string
			plain, path, _ = strings.Cut(path, ",")
			name.WriteString(strings.ToLower(strings.TrimSpace(plain)))
		}
		names = append(names, name.String())
	}
	return names
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
