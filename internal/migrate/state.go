package migrate

import (
	_ "embed"
	"slices"
	"strings"
)

// What has to exist, a line an object as the query SchemaObjects prints it:
// after revision 18, and what revision 20 adds to that.
var (
	//go:embed objects-18.txt
	objects18Text string
	//go:embed objects-20.txt
	objects20Text string

	objects18 = strings.Split(strings.TrimSpace(objects18Text), "\n")
	objects20 = strings.Split(strings.TrimSpace(objects20Text), "\n")
)

// breakingHere are the breaking revisions among those that are written here.
var breakingHere = []int{1, 3, 11, 13, 14, 16}

// nodeMarker is the revision that only Node records as breaking; Node's has no other
// content.
const nodeMarker = 19

// state is what was read of a schema, nearly at one moment.
type state struct {
	name        string // of the schema
	server      int
	hasSchema   bool
	hasLedger   bool
	hasBreaking bool
	columns     string     // of the ledger, with their types
	rows        []Revision // by id
	marks       marks
	objects     map[string]bool
}

// marks say which runtime has made the functions, by their texts.
type marks struct {
	keyLocks  bool // add_job raises GWNOR
	ownAdding bool // add_job is gworker's
	own       bool // some function is gworker's
}

func (s *state) newest() int {
	if len(s.rows) == 0 {
		return 0
	}
	return s.rows[len(s.rows)-1].ID
}

func (s *state) row(id int) (Revision, bool) {
	at := slices.IndexFunc(s.rows, func(r Revision) bool { return r.ID == id })
	if at < 0 {
		return Revision{}, false
	}
	return s.rows[at], true
}

func (s *state) ledger() Ledger {
	return Ledger{Installed: s.hasLedger, Newest: s.newest(), Revisions: slices.Clone(s.rows)}
}

// applied is the revision up to which everything was applied. That is the newest one in the
// ledger, even if earlier rows are missing, except for 19 and 20:
//
//   - Rust's 21 and 22 build on those two, so with them neither may run again.
//   - 19 was applied if the objects of revision 18 exist and add_job locks keys. Alone, it
//     counts only in gworker's form, since Rust's lacks what Node has in 20; together with
//     20, Rust's form counts too, as Rust may be at 20.
//   - 20 was applied if its objects exist as well.
func (s *state) applied() int {
	newest := s.newest()
	if newest <= 18 || newest > Newest {
		return newest
	}
	adding := s.marks.ownAdding || newest == 20 && s.marks.keyLocks
	switch {
	case !adding || len(s.lacking(objects18)) > 0:
		return 18
	case newest == 19 || len(s.lacking(objects20)) > 0:
		return 19
	}
	return newest
}

// pending are the revisions that a run would apply, in order.
func (s *state) pending() []int {
	var ids []int
	for id := s.applied() + 1; id <= Newest; id++ {
		ids = append(ids, id)
	}
	return ids
}

// missing are the objects that would exist after a complete run and do not.
func (s *state) missing() []string {
	return append(s.lacking(objects18), s.lacking(objects20)...)
}

// lostColumns are the missing columns of existing tables.
func (s *state) lostColumns() []string {
	return slices.DeleteFunc(s.missing(), func(object string) bool {
		column, isColumn := strings.CutPrefix(object, "column ")
		table, _, _ := strings.Cut(column, ".")
		return !isColumn || !s.objects["table "+table]
	})
}

func (s *state) lacking(want []string) []string {
	var lacking []string
	for _, object := range want {
		if !s.objects[object] {
			lacking = append(lacking, object)
		}
	}
	return lacking
}

// foreign reports whether the table is not the ledger of any Graphile Worker.
func (s *state) foreign() bool {
	columns := strings.Split(s.columns, ", ")
	return s.hasLedger && !(slices.Contains(columns, "id integer") && slices.Contains(columns, "ts timestamp with time zone"))
}

// truncated reports whether the ledger lacks rows of revisions that have run: the table of
// jobs has had its name only since 16.
func (s *state) truncated() bool {
	return s.hasLedger && !s.foreign() && s.newest() < 16 && s.objects["table _private_jobs"]
}

// refusal is the reason why a run must not start.
func (s *state) refusal() error {
	if s.server < 120000 {
		return &ServerVersionError{Number: s.server}
	}
	switch {
	case s.foreign():
		return &LedgerError{Schema: s.name, Columns: s.columns}
	case s.truncated():
		return &LedgerError{Schema: s.name, Newest: s.newest(), Truncated: true}
	}
	return s.compatible()
}

func (s *state) compatible() error {
	for _, row := range slices.Backward(s.rows) {
		if row.Breaking {
			return Compatible(s.newest(), row.ID)
		}
	}
	return nil
}

// Compatible takes the newest revision of a schema and its newest breaking one, and returns
// an *IncompatibleError if the schema must not be worked on.
func Compatible(newest, breaking int) error {
	switch {
	case breaking <= Newest:
		return nil
	case breaking > Known:
		return &IncompatibleError{Revision: newest, Breaking: breaking, Supported: Known}
	default:
		// The known 21 and 22 are not breaking, so this one belongs to another
		// lineage.
		return &IncompatibleError{Revision: newest, Breaking: breaking, Supported: Newest}
	}
}
