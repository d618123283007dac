package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/gworker/gworker/internal/terminal"
)

// table is rows for people, as wide as their texts, which are cut where they
// are long: commands have --json for whole ones.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print leaves out columns that are empty in every row.
func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range slices.Concat([][]string{t.head}, t.rows) {
		var shown []string
		for i, cell := range row {
			if slices.ContainsFunc(t.rows, func(r []string) bool { return r[i] != "" }) {
				shown = append(shown, terminal.Line(orDash(cell)))
			}
		}
		fmt.Fprintln(w, strings.Join(shown, "\t"))
	}
	return w.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// cell is other people's text as one line of so many characters at most.
func cell(text string, width int) string {
	line := []rune(terminal.Line(text))
	if len(line) > width {
		line = append(line[:width-1], '…')
	}
	return string(line)
}

// number is a count, with nothing for none, so that what is there stands out.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// printJSON writes one value on a line of its own.
func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}
