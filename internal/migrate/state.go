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

// nodeMarker is the revision that only Node records as breaking: there it has
// no other content.
const nodeMarker = 19

// state is what was found of a schema, at one moment or nearly so.
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

// marks are what the functions' texts tell about who made them.
type marks struct {
	keyLocks  bool // adding knows GWNOR
	ownAdding bool // adding is ours
	own       bool // some function is ours
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

// applied is the revision up to which everything is done. That is the newest
// one in the ledger, whatever earlier rows it lacks, but for 19 and 20:
//
//   - Rust's 21 or 22 stand on those two, so nothing of them may run again.
//   - 19 is done when the objects of revision 18 are there and adding locks
//     keys: on its own only in our form, since Rust's lacks what Node made of
//     20; together with 20 in Rust's form too, for Rust may be at 20.
//   - 20 is done when its objects are there as well.
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

// missing are the objects that a finished run leaves none of.
func (s *state) missing() []string {
	return append(s.lacking(objects18), s.lacking(objects20)...)
}

// lostColumns are the missing columns of tables that are there.
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

// truncated reports whether the ledger lacks rows of revisions that have run: only since
// 16 the table of jobs has its name.
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

// Compatible returns an *IncompatibleError if a schema must not be worked on whose
// newest revision and newest breaking one these are.
func Compatible(newest, breaking int) error {
	switch {
	case breaking <= Newest:
		return nil
	case breaking > Known:
		return &IncompatibleError{Revision: newest, Breaking: breaking, Supported: Known}
	default:
		// The 21 and 22 that are known are not breaking: this one is
		// another lineage's.
		return &IncompatibleError{Revision: newest, Breaking: breaking, Supported: Newest}
	}
}
