package gworkertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker"
)

// shown is how many jobs a message describes.
const shown = 10

// differences says in which fields a job is not as wanted.
func differences(want gworker.JobSpec, got *gworker.JobRow) (diffs []string) {
	differs := func(field string, want, got any) {
		diffs = append(diffs, fmt.Sprintf("%s is %v, want %v", field, got, want))
	}
	if want.Task != got.Task {
		differs("Task", quote(want.Task), quote(got.Task))
	}
	if want.Queue != "" && want.Queue != got.Queue {
		differs("Queue", quote(want.Queue), quote(got.Queue))
	}
	if want.Key != "" && want.Key != got.Key {
		differs("Key", quote(want.Key), quote(got.Key))
	}
	if want.Priority != 0 && want.Priority != got.Priority {
		differs("Priority", want.Priority, got.Priority)
	}
	if want.MaxAttempts != 0 && want.MaxAttempts != got.MaxAttempts {
		differs("MaxAttempts", want.MaxAttempts, got.MaxAttempts)
	}
	if !want.RunAt.IsZero() && !sameTime(want.RunAt, got.RunAt) {
		differs("RunAt", want.RunAt.Format(time.RFC3339Nano), got.RunAt.Format(time.RFC3339Nano))
	}
	if len(want.Flags) > 0 {
		flags := slices.Clone(want.Flags)
		slices.Sort(flags)
		if flags = slices.Compact(flags); !slices.Equal(flags, got.Flags) {
			differs("Flags", flags, got.Flags)
		}
	}
	if want.Payload != nil {
		text, _ := json.Marshal(want.Payload) // match has tried it
		if diff := cmp.Diff(decoded(text), decoded(got.Payload), sameNumbers); diff != "" {
			diffs = append(diffs, "Payload differs (-want +got):\n"+diff)
		}
	}
	return diffs
}

// sameTime allows for PostgreSQL's microseconds, to which a time is rounded or
// cut, depending on who converts it.
func sameTime(a, b time.Time) bool {
	diff := a.Sub(b)
	return -time.Microsecond < diff && diff < time.Microsecond
}

func decoded(text []byte) (v any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return string(text)
	}
	return v
}

// sameNumbers takes 1 and 1.0 as one number, and tells 2^60 from 2^60 + 1.
var sameNumbers = cmp.Comparer(func(a, b json.Number) bool {
	x, okX := new(big.Rat).SetString(string(a))
	y, okY := new(big.Rat).SetString(string(b))
	if !okX || !okY {
		return a == b
	}
	return x.Cmp(y) == 0
})

func quote(s string) string { return fmt.Sprintf("%q", s) }

// describeSpec is a spec's fields that are not zero.
func describeSpec(s gworker.JobSpec) string {
	parts := []string{"Task: " + quote(s.Task)}
	add := func(is bool, name string, value any) {
		if is {
			parts = append(parts, fmt.Sprintf("%s: %v", name, value))
		}
	}
	add(s.Queue != "", "Queue", quote(s.Queue))
	add(s.Key != "", "Key", quote(s.Key))
	add(s.Priority != 0, "Priority", s.Priority)
	add(s.MaxAttempts != 0, "MaxAttempts", s.MaxAttempts)
	add(!s.RunAt.IsZero(), "RunAt", s.RunAt.Format(time.RFC3339Nano))
	add(len(s.Flags) > 0, "Flags", s.Flags)
	if s.Payload != nil {
		text, _ := json.Marshal(s.Payload) // match has tried it
		add(true, "Payload", cut(string(text)))
	}
	return "  " + strings.Join(parts, ", ") + "\n"
}

// describeOthers says of the task's jobs why they are not the one, and of other
// tasks how many jobs there are.
func describeOthers(want gworker.JobSpec, others []*gworker.JobRow) string {
	if len(others) == 0 {
		return "There are no jobs at all."
	}
	var b strings.Builder
	elsewhere, near := map[string]int{}, 0
	for _, row := range others {
		if row.Task != want.Task {
			elsewhere[row.Task]++
			continue
		}
		if near++; near > shown {
			continue
		}
		fmt.Fprintf(&b, "job %d: %s\n", row.ID, strings.Join(differences(want, row), "; "))
	}
	switch {
	case near == 0:
		fmt.Fprintf(&b, "There is no job of task %q.\n", want.Task)
	case near > shown:
		fmt.Fprintf(&b, "and %d other jobs of the task.\n", near-shown)
	}
	for _, task := range slices.Sorted(maps.Keys(elsewhere)) {
		fmt.Fprintf(&b, "%d of task %q\n", elsewhere[task], task)
	}
	return strings.TrimRight(b.String(), "\n")
}

func describeRows(rows []*gworker.JobRow) string {
	var lines []string
	for i, row := range rows {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d more", len(rows)-shown))
			break
		}
		lines = append(lines, fmt.Sprintf("job %d: payload %s", row.ID, cut(string(row.Payload))))
	}
	return strings.Join(lines, "\n")
}

// cut keeps a message readable.
func cut(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
