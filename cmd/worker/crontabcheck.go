package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/internal/terminal"
)

// checkTimes is how many of an entry's next times are printed.
const checkTimes = 5

type crontabCheckFlags struct {
	json bool
	from string
}

func newCrontabCheckCommand(shared *sharedFlags) *cobra.Command {
	var f crontabCheckFlags
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a crontab, and print when its entries run next",
		Long: `check reads a crontab ("-" is standard input) and prints, line by line, each entry
with the next five times at which it runs, in UTC and in the entry's time zone,
and everything that is wrong. It needs no database.

The exit status is 1 if anything is wrong.`,
		Example: `  worker crontab check crontab
  worker crontab check --from 2026-10-24T00:00:00Z crontab   # how does it pass the end of summer time?
  worker crontab check --json crontab | jq '.entries[].next[0].utc'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{command: cmd.CommandPath(), err: errors.New(`name the one file to check, or "-"`)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			from := time.Now()
			if f.from != "" {
				var err error
				if from, err = time.Parse(time.RFC3339, f.from); err != nil {
					return usageError{command: cmd.CommandPath(), err: fmt.Errorf(
						"--from is %q: give a time such as 2027-01-01T06:00:00Z", f.from)}
				}
			}
			text, err := readCrontab(args[0], shared.std.in)
			if err != nil {
				return err
			}
			items, problems := cron.Parse(text)
			show := printCheck
			if f.json {
				show = printCheckJSON
			}
			if err := show(shared.std.out, args[0], items, problems, from); err != nil {
				return fmt.Errorf("printing the crontab: %w", err)
			}
			if len(problems) > 0 {
				return fmt.Errorf("the crontab has %s", counted(len(problems), "error"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print the entries and errors as JSON")
	cmd.Flags().StringVar(&f.from, "from", "", "print the times after this one (default now)")
	return cmd
}

func readCrontab(name string, stdin io.Reader) (string, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return "", fmt.Errorf("reading the crontab: %w", err)
	}
	return string(text), nil
}

// nextTimes are the next times at which an item runs.
func nextTimes(item *cron.Item, from time.Time) []time.Time {
	var times []time.Time
	for at := item.Next(from); len(times) < checkTimes && !at.IsZero(); at = item.Next(at) {
		times = append(times, at)
	}
	return times
}

// printCheck prints entries and errors in the order of their lines.
func printCheck(out io.Writer, name string, items []cron.Item, problems cron.Errors, from time.Time) error {
	var text strings.Builder
	for len(items) > 0 || len(problems) > 0 {
		if len(items) == 0 || len(problems) > 0 && problems[0].Line < items[0].Line {
			p := problems[0]
			terminal.Fprintf(&text, "%s:%d: error: %s: %s\n", name, p.Line, p.Field, p.Problem)
			problems = problems[1:]
			continue
		}
		item := &items[0]
		terminal.Fprintf(&text, "%s:%d: %s\n", name, item.Line, item)
		times := nextTimes(item, from)
		for _, at := range times {
			terminal.Fprintf(&text, "    %s", at.UTC().Format("Mon 2006-01-02 15:04 MST"))
			if item.Zone.Name() != "" {
				terminal.Fprintf(&text, "   %s", at.In(item.Zone.Location()).Format("Mon 2006-01-02 15:04 -07:00 MST"))
			}
			text.WriteByte('\n')
		}
		if len(times) == 0 {
			text.WriteString("    never: there is no such day\n")
		}
		items = items[1:]
	}
	_, err := io.WriteString(out, text.String())
	return err
}

type checkJSON struct {
	File    string       `json:"file"`
	Entries []entryJSON  `json:"entries"`
	Errors  []cronErrors `json:"errors"`
}

type entryJSON struct {
	Line        int             `json:"line"`
	Identifier  string          `json:"identifier"`
	Task        string          `json:"task_identifier"`
	Schedule    string          `json:"schedule"`
	TimeZone    string          `json:"time_zone"`
	FillSeconds float64         `json:"fill_seconds"`
	MaxAttempts int             `json:"max_attempts,omitempty"`
	Queue       string          `json:"queue_name,omitempty"`
	Key         string          `json:"key,omitempty"`
	KeyMode     string          `json:"key_mode,omitempty"`
	Priority    int             `json:"priority"`
	Payload     json.RawMessage `json:"payload"`
	Next        []timeJSON      `json:"next"`
}

type timeJSON struct {
	UTC   time.Time `json:"utc"`
	Local time.Time `json:"local"`
}

type cronErrors struct {
	Line    int    `json:"line"`
	Field   string `json:"field"`
	Problem string `json:"problem"`
}

func printCheckJSON(out io.Writer, name string, items []cron.Item, problems cron.Errors, from time.Time) error {
	check := checkJSON{File: name, Entries: []entryJSON{}, Errors: []cronErrors{}}
	for n := range items {
		i := &items[n]
		entry := entryJSON{
			Line: i.Line, Identifier: i.Identifier, Task: i.Task, Schedule: i.Schedule.String(), TimeZone: i.Zone.Location().String(),
			FillSeconds: i.Fill.Seconds(), MaxAttempts: i.MaxAttempts, Queue: i.Queue, Key: i.Key, KeyMode: i.KeyMode,
			Priority: i.Priority, Payload: slices.Clone(i.Payload), Next: []timeJSON{},
		}
		if entry.Payload == nil {
			entry.Payload = json.RawMessage("{}")
		}
		for _, at := range nextTimes(i, from) {
			entry.Next = append(entry.Next, timeJSON{UTC: at.UTC(), Local: at.In(i.Zone.Location())})
		}
		check.Entries = append(check.Entries, entry)
	}
	for _, p := range problems {
		check.Errors = append(check.Errors, cronErrors{Line: p.Line, Field: p.Field, Problem: p.Problem})
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(check)
}
