package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/gworker/gworker/db"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
)

// ownMark is in the body of every function that gworker's migrations make.
const ownMark = "-- made by gworker"

var functionText = regexp.MustCompile(`(?s)create or replace function graphile_worker\.(\w+)\s*\([^$]*?\$gw\$(.*?)\$gw\$`)

// ownBodies are the bodies that gworker's migrations give to functions, by name, for the
// default schema.
var ownBodies = sync.OnceValues(func() (map[string][]string, error) {
	files, err := fs.Glob(db.Migrations, "*.sql")
	if err != nil {
		return nil, err
	}
	bodies := map[string][]string{}
	for _, file := range files {
		text, err := fs.ReadFile(db.Migrations, file)
		if err != nil {
			return nil, err
		}
		for _, match := range functionText.FindAllStringSubmatch(string(text), -1) {
			bodies[match[1]] = append(bodies[match[1]], match[2])
		}
	}
	return bodies, nil
})

// judged are the schema's functions: those that are as gworker's migrations make them, the
// names of those that should be and are not, and those of other runtimes.
type judged struct {
	unchanged, others int
	changed           []string
}

// functions compares the functions with those of gworker's migrations. If gworker's
// revisions 19 and 20 ran last, they have made all functions. The versions of other
// runtimes' functions are too many to list.
func (c *checker) functions(ctx context.Context) (judged, error) {
	rows, err := getIn(ctx, c, (*dbgen.Queries).DoctorFunctions)
	if err != nil {
		return judged{}, err
	}
	bodies, err := ownBodies()
	if err != nil {
		return judged{}, err
	}
	isMarked := func(r dbgen.DoctorFunctionsRow) bool { return strings.Contains(r.Body, ownMark) }
	allOurs := c.status.Ledger.Newest <= migrate.Newest && slices.ContainsFunc(rows, isMarked)
	var found judged
	for _, r := range rows {
		switch {
		case slices.ContainsFunc(bodies[r.Name], func(body string) bool { return c.options.Schema.Render(body) == r.Body }):
			found.unchanged++
		case isMarked(r) || allOurs && bodies[r.Name] != nil:
			found.changed = append(found.changed, r.Name)
		default:
			found.others++
		}
	}
	return found, nil
}

func checkFunctions(ctx context.Context, c *checker) (Finding, error) {
	found, err := c.functions(ctx)
	if err != nil {
		return Finding{}, err
	}
	unchanged, others, changed := found.unchanged, found.others, found.changed
	if len(changed) == 0 {
		text := fmt.Sprintf("%s as gworker makes them", plural(unchanged, "function is", "functions are"))
		if others > 0 {
			text += fmt.Sprintf("; %d of other makers, such as Node's or Rust's worker, cannot be judged", others)
		}
		return ok(text + "."), nil
	}
	return Finding{
		Severity: Warning,
		What: fmt.Sprintf("%s other contents than this version of gworker gives them: %s.",
			plural(len(changed), "function has", "functions have"), listed(changed, ", ")),
		Why: "They were changed by hand, the schema was renamed, or another version of gworker made them. They are then not the functions that were tested.",
		Help: []string{
			fmt.Sprintf("select prosrc from pg_proc where pronamespace = %s::regnamespace and proname = %s;",
				literal(c.options.Schema.Quoted()), literal(changed[0])),
			"-- gworker's own text is in its folder db/migrations: the functions of revisions 19 and 20 can be created again from there.",
		},
	}, nil
}
