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

// table prints rows in columns as wide as their texts. Long texts are cut; --json has them
// whole.
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

// cell is a text from outside, on one line of at most so many characters.
func cell(text string, width int) string {
	line := []rune(terminal.Line(text))
	if len(line) > width {
		line = append(line[:width-1], '…')
	}
	return string(line)
}

// number is a count, or an empty text for 0, so that other counts stand out.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// printJSON writes a value on one line.
func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}
