package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/terminal"
)

func newDoctorCommand(shared *sharedFlags) *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the queue and its database",
		Long: `doctor examines the server, the schema and the queue, and says what is wrong with
them, why it matters and what helps. It changes nothing.

The exit status is 1 if there is a problem, or if the examination failed. Notes
and warnings leave it at 0.`,
		Example: `  worker doctor
  worker doctor --json | jq '.findings[] | select(.severity == "problem") | .id'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := shared.client()
			if err != nil {
				return err
			}
			defer client.Close()
			report, err := client.Doctor(cmd.Context())
			// The findings before an error may explain it.
			if err == nil || len(report.Findings) > 0 {
				if err := printReport(shared.std.out, report, asJSON, all); err != nil {
					return fmt.Errorf("printing the report: %w", err)
				}
			}
			if problems := report.Count(gworker.SeverityProblem); err == nil && problems > 0 {
				return fmt.Errorf("the doctor found %s", counted(problems, "problem"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	cmd.Flags().BoolVar(&all, "all", false, "print what is in order as well")
	return cmd
}

func printReport(out io.Writer, report gworker.Report, asJSON, all bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	// Ids, names and applications are texts from outside.
	_, err := io.WriteString(out, terminal.Block(reportText(report, all)))
	return err
}

// reportText is the report as text, the worst findings first.
func reportText(report gworker.Report, all bool) string {
	var b strings.Builder
	terminal.Fprintf(&b, "schema %q at revision %d, PostgreSQL %s, %s\n",
		report.Schema, report.Revision, report.Server, report.CheckedAt.Format(time.RFC3339))
	findings := slices.Clone(report.Findings)
	slices.SortStableFunc(findings, func(a, b gworker.Finding) int { return int(b.Severity) - int(a.Severity) })
	for _, f := range findings {
		if f.Severity == gworker.SeverityOK && !all {
			continue
		}
		terminal.Fprintf(&b, "\n%s  %s\n", strings.ToUpper(f.Severity.String()), f.ID)
		b.WriteString(wrapped(f.What, "  "))
		if f.Why != "" {
			b.WriteString("  Why it matters:\n" + wrapped(f.Why, "    "))
		}
		if len(f.Help) > 0 {
			b.WriteString("  What helps:\n")
			for _, line := range f.Help {
				// Not wrapped, so that it can be copied.
				b.WriteString("    " + strings.ReplaceAll(line, "\n", "\n    ") + "\n")
			}
		}
	}
	terminal.Fprintf(&b, "\n%s, %s, %s, %d ok\n",
		counted(report.Count(gworker.SeverityProblem), "problem"), counted(report.Count(gworker.SeverityWarning), "warning"),
		counted(report.Count(gworker.SeverityNote), "note"), report.Count(gworker.SeverityOK))
	return b.String()
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// wrapped breaks a text into indented lines of 80 columns.
func wrapped(text, indent string) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(terminal.Line(text)) {
		width := len([]rune(word))
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+width > 80:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += width
	}
	return b.String() + "\n"
}
