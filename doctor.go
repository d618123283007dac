package gworker

import (
	"context"
	"slices"
	"time"

	"github.com/gworker/gworker/internal/doctor"
)

// A Report is what Client.Doctor found. docs/doctor.md explains each finding. Each check
// has at most one finding; those that make no sense on what was found of the schema have
// none.
type Report struct {
	// Schema is the name of the schema.
	Schema string `json:"schema"`
	// Revision is the newest one in the schema's ledger, 0 without one.
	Revision int `json:"revision"`
	// Server is the version of PostgreSQL, such as "18.1".
	Server string `json:"server"`
	// CheckedAt is the database's time.
	CheckedAt time.Time `json:"checked_at"`
	// Worst is the worst severity among the findings.
	Worst Severity `json:"worst"`
	// Findings are what the checks found.
	Findings []Finding `json:"findings"`
}

// A Finding is one line of a Report: what was found, why it matters and what
// helps.
type Finding struct {
	// ID names the check; it does not change from release to release.
	ID string `json:"id"`
	// Severity says how bad it is.
	Severity Severity `json:"severity"`
	// What was found.
	What string `json:"what"`
	// Why it matters; empty if the finding is OK.
	Why string `json:"why,omitempty"`
	// Help is what helps, a line each: commands, SQL and its comments, advice.
	Help []string `json:"help,omitempty"`
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

// Severity says how bad a finding is. Severities can be compared.
type Severity int8

// The severities, from harmless to bad.
const (
	SeverityOK      Severity = iota // nothing is wrong
	SeverityNote                    // worth knowing
	SeverityWarning                 // costs something now, or will become a problem
	SeverityProblem                 // jobs are late, stuck or in danger, or will be soon
)

// String returns the severity's name, such as "warning".
func (s Severity) String() string { return doctor.Severity(s).String() }

// MarshalText returns the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return doctor.Severity(s).MarshalText() }

// UnmarshalText reads a severity's name.
func (s *Severity) UnmarshalText(text []byte) error { return (*doctor.Severity)(s).UnmarshalText(text) }

// Doctor examines the server, the schema and the queue, and reports what is wrong
// with them. It reads only, and works on a database without the schema too. It
// needs one connection of the pool, and a second one for a moment.
//
// A check that cannot be made, for example without the necessary rights, is a finding. The
// error is for what ends the examination, such as a lost connection; the Report then has
// what was found before.
func (c *Client) Doctor(ctx context.Context) (Report, error) {
	if err := c.reach(ctx); err != nil {
		return Report{}, err
	}
	r, err := doctor.Examine(ctx, c.pool, doctor.Options{
		Schema: c.options.Schema, Timeout: c.options.Timeout, Unprepared: c.options.Unprepared,
	})
	return publicReport(r), err
}

func publicReport(r doctor.Report) Report {
	return Report{
		Schema: r.Schema, Revision: r.Revision, Server: r.Server, CheckedAt: r.CheckedAt, Worst: Severity(r.Worst),
		Findings: converted(r.Findings, func(f doctor.Finding) Finding {
			return Finding{ID: f.ID, Severity: Severity(f.Severity), What: f.What, Why: f.Why, Help: f.Help}
		}),
	}
}
