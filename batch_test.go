package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/testdb"
	"github.com/gworker/gworker/internal/testworker"
)

type note struct {
	N int `json:"n"`
}

// failures answers for each element as its number says.
func failures(job *gworker.BatchJob[note]) []error {
	results := make([]error, len(job.Payload))
	for i, note := range job.Payload {
		switch note.N {
		case 1:
			results[i] = errors.New("one\nmore line")
		case 2:
			results[i] = fmt.Errorf("two: %w", gworker.Discard(errors.New("never")))
		case 3:
			results[i] = gworker.Snooze(time.Minute)
		case 4:
			results[i] = gworker.Snooze(time.Hour)
		}
	}
	return results
}

func TestBatchKeepsWhatFailed(t *testing.T) {
	var sample testdb.Sample
	whole := func(results []error, err error) func(*gworker.BatchJob[note]) ([]error, error) {
		return func(*gworker.BatchJob[note]) ([]error, error) { return results, err }
	}
	each := func(job *gworker.BatchJob[note]) ([]error, error) { return failures(job), nil }
	for name, c := range map[string]struct {
		payload string
		handle  func(*gworker.BatchJob[note]) ([]error, error)
		calls   string // the numbers that the handler got
		row     string
		left    string
		wait    time.Duration
	}{
		"all succeed":   {`[{"n":0},{"n":9}]`, each, "0 9", "gone", "", 0},
		"nil list":      {`[{"n":1}]`, whole(nil, nil), "1", "gone", "", 0},
		"some fail":     {`[{"n":0}, {"n": 1,"x":1.50},{"n":9},{"n":1}]`, each, "0 1 9 1", "1/3|Batch failures:\none\nmore line\none\nmore line|again", `[{"n": 1,"x":1.50},{"n":1}]`, 2718 * time.Millisecond},
		"undecodable":   {`[{"n":"x"},{"n":0},5]`, each, "0", "1/3|Batch failures:\nelement 0: decoding|again", `[{"n":"x"},5]`, 2718 * time.Millisecond},
		"none decodes":  {`["x"]`, each, "-", "1/3|Batch failures:\nelement 0: decoding|again", `["x"]`, 2718 * time.Millisecond},
		"empty":         {` [ ] `, each, "-", "gone", "", 0},
		"no array":      {`{"n":1}`, each, "-", "1/3|the payload of a batch job must be a JSON array, an element for each piece of work|again", `{"n":1}`, 2718 * time.Millisecond},
		"too few":       {`[{"n":0},{"n":0}]`, whole([]error{nil}, nil), "0 0", "1/3|the batch handler returned 1 results for 2 elements: it must return one for each, or nil|again", `[{"n":0},{"n":0}]`, 2718 * time.Millisecond},
		"too many":      {`[{"n":0}]`, whole(make([]error, 2), nil), "0", "1/3|the batch handler returned 2 results for 1 elements: it must return one for each, or nil|again", `[{"n":0}]`, 2718 * time.Millisecond},
		"whole fails":   {`[{"n":0},"x"]`, whole([]error{nil}, errors.New("offline")), "0", "1/3|offline|again", `[{"n":0},"x"]`, 2718 * time.Millisecond},
		"whole snoozes": {`[{"n":0}]`, whole(nil, gworker.Snooze(time.Hour)), "0", "0/3|-|again", `[{"n":0}]`, time.Hour},
		"whole cancels": {`[{"n":0}]`, whole(nil, gworker.Discard(errors.New("no"))), "0", "3/3|no|failed", `[{"n":0}]`, 2718 * time.Millisecond},
		"all snooze":    {`[{"n":4},{"n":0},{"n":3}]`, each, "4 0 3", "0/3|-|again", `[{"n":4},{"n":3}]`, time.Hour},
		"some snooze":   {`[{"n":4},{"n":1}]`, each, "4 1", "1/3|Batch failures:\nsnoozed for 1h0m0s\none\nmore line|again", `[{"n":4},{"n":1}]`, 2718 * time.Millisecond},
		"all cancel":    {`[{"n":2},{"n":0},{"n":2}]`, each, "2 0 2", "3/3|Batch failures:\ntwo: never\ntwo: never|failed", `[{"n":2},{"n":2}]`, 2718 * time.Millisecond},
		"some cancel":   {`[{"n":2},{"n":1}]`, each, "2 1", "1/3|Batch failures:\ntwo: never\none\nmore line|again", `[{"n":2},{"n":1}]`, 2718 * time.Millisecond},
		"panic":         {`[{"n":0},{"n":1}]`, func(*gworker.BatchJob[note]) ([]error, error) { panic("no") }, "0 1", "1/3|panic: no|again", `[{"n":0},{"n":1}]`, 2718 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := migrated(t)
			job := add(t, newClient(t, pool), gworker.JobSpec{Task: "b", Payload: json.RawMessage(c.payload), MaxAttempts: 3})
			calls := "-"
			e := runOnce(t, gworker.Config{Pool: pool, MaxPoolSize: 0, Tasks: []gworker.Task{
				gworker.NewBatchTask("b", func(_ context.Context, job *gworker.BatchJob[note]) ([]error, error) {
					var got []string
					for _, note := range job.Payload {
						got = append(got, fmt.Sprint(note.N))
					}
					calls = strings.Join(got, " ")
					return c.handle(job)
				}),
			}})
			if calls != c.calls {
				t.Errorf("handler got %q, want %q", calls, c.calls)
			}
			row := testworker.Row(t, pool, job.ID)
			if name == "panic" || strings.Contains(name, "decod") {
				// The rest of the text is a stack, or encoding/json's.
				first, _, _ := strings.Cut(c.row, "|again")
				if !strings.HasPrefix(row, first) || !strings.HasSuffix(row, "|again") {
					t.Errorf("row %q, want %q", row, c.row)
				}
			} else if row != c.row {
				t.Errorf("row %q, want %q", row, c.row)
			}
			if row == "gone" {
				return
			}
			var left string
			scan(t, pool, "select payload::text from graphile_worker._private_jobs", nil, &left)
			if left != c.left {
				t.Errorf("payload %s is left, want %s", left, c.left)
			}
			if got := waits(t, pool, job.ID); got != c.wait {
				t.Errorf("waits for %s, want %s", got, c.wait)
			}
			if name == "some fail" {
				failed := waitFor[event.JobFailed](t, e, nil)
				var batch *gworker.BatchError
				if !errors.As(failed.Err, &batch) || batch.Total != 4 || len(batch.Failed) != 2 || batch.Failed[1].Index != 3 ||
					string(batch.Failed[1].Payload) != `{"n":1}` {
					t.Errorf("event %+v", failed)
				}
			}
		})
	}
}

// TestBatchCutOffKeepsWhatFailed: what a batch has done before a shutdown is not
// done again, and its attempt does not count.
func TestBatchCutOffKeepsWhatFailed(t *testing.T) {
	pool := migrated(t)
	job := add(t, newClient(t, pool), gworker.JobSpec{Task: "b", Payload: []note{{0}, {5}, {6}}})
	started := make(chan struct{})
	w := start(t, gworker.Config{Pool: pool, GracefulShutdownAbortTimeout: time.Millisecond, Tasks: []gworker.Task{
		gworker.NewBatchTask("b", func(ctx context.Context, job *gworker.BatchJob[note]) ([]error, error) {
			close(started)
			<-ctx.Done()
			return []error{nil, ctx.Err(), ctx.Err()}, nil
		}),
	}})
	<-started
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	var left string
	scan(t, pool, "select payload::text from graphile_worker._private_jobs", nil, &left)
	if row := testworker.Row(t, pool, job.ID); row != "0/25|-|again" || left != `[{"n":5},{"n":6}]` {
		t.Errorf("row %q with payload %s", row, left)
	}
}
