package interop_test

import (
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// A spec is a job to add, spelled as the Node client spells it.
type spec struct {
	Task        string          `json:"identifier"`
	Payload     json.RawMessage `json:"payload,omitempty"`
	Queue       string          `json:"queueName,omitempty"`
	RunAt       time.Time       `json:"runAt,omitzero"`
	MaxAttempts int             `json:"maxAttempts,omitempty"`
	Key         string          `json:"jobKey,omitempty"`
	KeyMode     string          `json:"jobKeyMode,omitempty"`
	Priority    int             `json:"priority,omitempty"`
	Flags       []string        `json:"flags,omitempty"`
}

func (s spec) gworker() gworker.JobSpec {
	converted := gworker.JobSpec{
		Task: s.Task, Queue: s.Queue, RunAt: s.RunAt, MaxAttempts: s.MaxAttempts, Key: s.Key,
		KeyMode: gworker.KeyMode(s.KeyMode), Priority: s.Priority, Flags: s.Flags,
	}
	if s.Payload != nil {
		converted.Payload = s.Payload
	}
	return converted
}

// A call is one call of a client's method; one of the fields is set.
type call struct {
	AddJob      *spec  `json:"addJob,omitempty"`
	QuickAddJob *spec  `json:"quickAddJob,omitempty"` // on gworker the same as AddJob
	AddJobs     []spec `json:"addJobs,omitempty"`
}

// add makes the calls with the side's own client and returns the ids that they
// returned, in the order of the specs.
func (s side) add(t *testing.T, url string, calls ...call) []int64 {
	t.Helper()
	j := newJournal()
	o := order{ConnectionString: url, Package: s.version.Package, Calls: calls}
	var cmd *exec.Cmd
	switch {
	case s.isNode():
		cmd = node.Require(t).Command(t.Context(), t, "client.mjs")
	case s.isRust():
		cmd = rust.Command(t.Context(), t, s.crate, "client")
	default:
		return addWithGworker(t, url, calls)
	}
	start(t, s.String()+" client", cmd, o, j).wait(t)
	for _, e := range j.events {
		if e.Event == "added" {
			return e.IDs
		}
	}
	t.Fatalf("%s's client did not say which jobs it added", s)
	return nil
}

func addWithGworker(t *testing.T, url string, calls []call) (ids []int64) {
	t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: url})
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	defer client.Close()
	for _, c := range calls {
		one := c.AddJob
		if one == nil {
			one = c.QuickAddJob
		}
		if one != nil {
			job, err := client.AddJob(t.Context(), one.gworker())
			if err != nil {
				t.Fatalf("AddJob: %v", err)
			}
			ids = append(ids, job.ID)
			continue
		}
		specs := make([]gworker.JobSpec, len(c.AddJobs))
		for i, s := range c.AddJobs {
			specs[i] = s.gworker()
		}
		jobs, err := client.AddJobs(t.Context(), specs)
		if err != nil {
			t.Fatalf("AddJobs: %v", err)
		}
		for _, job := range jobs {
			ids = append(ids, job.ID)
		}
	}
	return ids
}
