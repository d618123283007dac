package doctor

import (
	"fmt"
	"slices"
	"time"
)

// Severity says how bad a finding is. Severities can be compared.
type Severity int8

// The severities, from harmless to bad.
const (
	// OK: nothing is wrong.
	OK Severity = iota
	// Note: worth knowing, and needs no action.
	Note
	// Warning: has a cost now, or will become a problem.
	Warning
	// Problem: jobs are late, stuck or in danger, or will be soon.
	Problem
)

var severityNames = []string{"ok", "note", "warning", "problem"}

func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return fmt.Sprintf("Severity(%d)", int8(s))
	}
	return severityNames[s]
}

// MarshalText gives the severity's name.
func (s Severity) MarshalText() ([]byte, error) {
	if s < 0 || int(s) >= len(severityNames) {
		return nil, fmt.Errorf("severity %d has no name", int8(s))
	}
	return []byte(severityNames[s]), nil
}

// UnmarshalText reads a severity's name.
func (s *Severity) UnmarshalText(text []byte) error {
	at := slices.Index(severityNames, string(text))
	if at < 0 {
		return fmt.Errorf("%q is no severity", text)
	}
	*s = Severity(at)
	return nil
}

// A Finding is what one check found. docs/doctor.md lists them by id.
type Finding struct {
	// ID names the check; it does not change from release to release.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// What was found.
	What string `json:"what"`
	// Why it matters; empty if the finding is OK.
	Why string `json:"why,omitempty"`
	// Help says what helps, line by line: commands, SQL and its comments, advice.
	Help []string `json:"help,omitempty"`
}

// A Report is the result of an examination. Each check has at most one finding; checks that
// do not apply to the schema as it was found have none.
type Report struct {
	Schema string `json:"schema"`
	// Revision is the newest one in the schema's ledger, 0 without one.
	Revision int `json:"revision"`
	// Server is the version of PostgreSQL, such as "18.1".
	Server string `json:"server"`
	// CheckedAt is the database's time.
	CheckedAt time.Time `json:"checked_at"`
	// Worst is the worst severity among the findings.
	Worst    Severity  `json:"worst"`
	Findings []Finding `json:"findings"`
}

// Find returns the finding of a check, by its id.
func (r Report) Find(id string) (Finding, bool) {
	at := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.ID == id })
	if at < 0 {
		return Finding{}, false
	}
	return r.Findings[at], true
}

// Count counts the findings of a severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}
