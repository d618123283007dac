package gworker

import (
	"context"

	"github.com/gworker/gworker/internal/doctor"
)

// A Report is what Client.Doctor found. docs/doctor.md explains each finding.
type Report = doctor.Report

// A Finding is one line of a Report: what was found, why it matters and what
// helps.
type Finding = doctor.Finding

// Severity says how bad a finding is. Severities can be compared.
type Severity = doctor.Severity

// The severities, from harmless to bad.
const (
	SeverityOK      = doctor.OK
	SeverityNote    = doctor.Note
	SeverityWarning = doctor.Warning
	SeverityProblem = doctor.Problem
)

// Doctor examines the server, the schema and the queue, and reports what is wrong
// with them. It reads only, and works on a database without the schema too. It
// needs one connection of the pool, and a second one for a moment.
//
// What cannot be found out, for want of rights for example, is a finding. The
// error is for what ends the examination, such as a lost connection; the Report
// then holds what was found before.
func (c *Client) Doctor(ctx context.Context) (Report, error) {
	if err := c.reach(ctx); err != nil {
		return Report{}, err
	}
	return doctor.Examine(ctx, c.pool, doctor.Options{
		Schema: c.options.Schema, Timeout: c.options.Timeout, Unprepared: c.options.Unprepared,
	})
}
