package interop_test

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// An adminCall is one call of a side's utilities, spelled as Node's.
type adminCall struct {
	Method  string        `json:"method"`
	IDs     []int64       `json:"ids,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Options *adminOptions `json:"options,omitempty"`
	Workers []string      `json:"workers,omitempty"`
}

type adminOptions struct {
	RunAt       *time.Time            `json:"runAt,omitempty"`
	Priority    *int                  `json:"priority,omitempty"`
	Attempts    *int                  `json:"attempts,omitempty"` // Node takes 0 for "not given"
	MaxAttempts *int                  `json:"maxAttempts,omitempty"`
	Tasks       []gworker.CleanupTask `json:"tasks,omitempty"`
	Keep        []string              `json:"taskIdentifiersToKeep,omitempty"` // not Rust

	JobKey      string `json:"jobKey,omitempty"`      // removeJob, of Rust only
	ThresholdMs int    `json:"thresholdMs,omitempty"` // sweepStaleWorkers, of Rust only
	DelayMs     *int   `json:"delayMs,omitempty"`
	DryRun      bool   `json:"dryRun,omitempty"`
}

// administer makes the calls with the side's own utilities, and returns the ids
// of the jobs that each of them returned.
func (s side) administer(t *testing.T, url string, calls []adminCall) (touched [][]int64) {
	t.Helper()
	if !s.isNode() && !s.isRust() {
		return administerWithGworker(t, url, calls)
	}
	for _, e := range s.utilities(t, url, calls) {
		touched = append(touched, e.IDs)
	}
	return touched
}

// utilities makes the calls with the utilities of Node or Rust, and returns what
// each of them answered.
func (s side) utilities(t *testing.T, url string, calls []adminCall) (answers []report) {
	t.Helper()
	j := newJournal()
	o := order{ConnectionString: url, Package: s.version.Package, Administer: calls}
	var cmd *exec.Cmd
	if s.isRust() {
		cmd = rust.Command(t.Context(), t, s.crate, "admin")
	} else {
		cmd = node.Require(t).Command(t.Context(), t, "admin.mjs")
	}
	start(t, s.String()+" utilities", cmd, o, j).wait(t)
	for _, e := range j.events {
		if e.Event == "administered" {
			answers = append(answers, e)
		}
	}
	return answers
}

func administerWithGworker(t *testing.T, url string, calls []adminCall) (touched [][]int64) {
	t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: url})
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	defer client.Close()
	for _, c := range calls {
		var changed gworker.ChangedJobs
		switch c.Method {
		case "completeJobs":
			changed, err = client.CompleteJobs(t.Context(), c.IDs)
		case "permanentlyFailJobs":
			changed, err = client.PermanentlyFailJobs(t.Context(), c.IDs, c.Reason)
		case "rescheduleJobs":
			changed, err = client.RescheduleJobs(t.Context(), c.IDs, gworker.RescheduleOptions{
				RunAt: c.Options.RunAt, Priority: c.Options.Priority, Attempts: c.Options.Attempts, MaxAttempts: c.Options.MaxAttempts,
			})
		case "forceUnlockWorkers":
			_, err = client.ForceUnlockWorkers(t.Context(), c.Workers)
		case "cleanup":
			_, err = client.Cleanup(t.Context(), gworker.CleanupOptions{Tasks: c.Options.Tasks, KeepTasks: c.Options.Keep})
		default:
			t.Fatalf("no such call: %s", c.Method)
		}
		if err != nil {
			t.Fatalf("%s: %v", c.Method, err)
		}
		ids := []int64{}
		for _, job := range changed.Jobs {
			ids = append(ids, job.ID)
		}
		touched = append(touched, ids)
	}
	return touched
}

// administered is what administration may change.
type administered struct {
	Jobs   []storedJob
	IDs    []int64
	Errors []string
	Tasks  []string
	Queues []string
	Holds  []string
}

func (db *database) administered() administered {
	db.t.Helper()
	return administered{
		Jobs:   db.jobs(),
		IDs:    values[int64](db, "select id from graphile_worker._private_jobs order by id"),
		Errors: values[string](db, "select coalesce(last_error, '') from graphile_worker._private_jobs order by id"),
		Tasks:  values[string](db, `select identifier from graphile_worker._private_tasks order by identifier collate "C"`),
		Queues: values[string](db, `select queue_name from graphile_worker._private_job_queues order by queue_name collate "C"`),
		Holds: values[string](db, `select coalesce(locked_by, '') from graphile_worker._private_jobs where locked_at is not null
			union all select queue_name || ' ' || coalesce(locked_by, '') from graphile_worker._private_job_queues where locked_at is not null order by 1`),
	}
}

// arrangeAdministration makes twenty jobs in the situations that make a
// difference: free, tried, failed, locked, and locked for too long.
func (db *database) arrangeAdministration() {
	db.exec(`select graphile_worker.add_job('task ' || n % 4, json_build_object('n', n), queue_name => case n % 3 when 0 then 'queue ' || n % 5 end,
		run_at => timestamptz '2031-01-01Z' + n * interval '1 hour', job_key => case n % 2 when 0 then 'key ' || n end, max_attempts => 5)
		from generate_series(1, 20) n`)
	for _, set := range []string{
		"attempts = 2, last_error = 'tried' where id in (2, 3, 14)",
		"attempts = 5, last_error = 'failed' where id in (5, 6, 15, 16)",
		"attempts = 7 where id = 17",
		"attempts = 1, locked_at = now(), locked_by = 'pool-1' where id in (7, 8, 18)",
		"attempts = 1, locked_at = now() - interval '3 hours', locked_by = 'worker-2' where id = 9",
		"attempts = 1, locked_at = now() - interval '5 hours', locked_by = 'worker-2' where id in (10, 11, 12)",
	} {
		db.exec("update graphile_worker._private_jobs set " + set)
	}
	db.exec(`update graphile_worker._private_job_queues q set locked_at = j.locked_at, locked_by = j.locked_by
		from graphile_worker._private_jobs j where j.job_queue_id = q.id and j.locked_at is not null`)
	db.exec("insert into graphile_worker._private_tasks (identifier) values ('unused'), ('kept'), ('it''s')")
	db.exec("insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by) values ('unused', null, null), ('locked', now(), 'pool-1')")
}

// What Rust's utilities cannot be asked: they want a reason, and their cleanup
// keeps only the tasks of the worker that they come from.
var notInRust = []string{"fail, no reason", "cleanup tasks"}

// The utilities of Node and Rust and ours do the same to the same tables.
func TestAdministration(t *testing.T) {
	at := time.Date(2032, 3, 4, 5, 6, 7, 0, time.UTC)
	all := make([]int64, 22) // and two that are not there
	for i := range all {
		all[i] = int64(i + 1)
	}
	scripts := map[string][]adminCall{
		"complete":                {{Method: "completeJobs", IDs: all[:12]}},
		"fail":                    {{Method: "permanentlyFailJobs", IDs: all, Reason: "it's over\n☃"}},
		"fail, no reason":         {{Method: "permanentlyFailJobs", IDs: all}},
		"reschedule":              {{Method: "rescheduleJobs", IDs: all, Options: &adminOptions{RunAt: &at, Priority: new(-5), Attempts: new(3), MaxAttempts: new(4)}}},
		"reschedule run_at":       {{Method: "rescheduleJobs", IDs: all, Options: &adminOptions{RunAt: &at}}},
		"reschedule attempts":     {{Method: "rescheduleJobs", IDs: all, Options: &adminOptions{Attempts: new(5)}}},
		"reschedule max_attempts": {{Method: "rescheduleJobs", IDs: all, Options: &adminOptions{MaxAttempts: new(2)}}},
		"force unlock":            {{Method: "forceUnlockWorkers", Workers: []string{"pool-1", "nobody"}}},
		"force unlock, complete":  {{Method: "forceUnlockWorkers", Workers: []string{"pool-1", "worker-2"}}, {Method: "completeJobs", IDs: all}},
		"cleanup tasks":           {{Method: "cleanup", Options: &adminOptions{Tasks: []gworker.CleanupTask{gworker.GCTaskIdentifiers}, Keep: []string{"kept"}}}},
		"cleanup queues": {{Method: "completeJobs", IDs: all},
			{Method: "cleanup", Options: &adminOptions{Tasks: []gworker.CleanupTask{gworker.GCJobQueues}}}},
		"cleanup failed jobs": {{Method: "rescheduleJobs", IDs: []int64{17}, Options: &adminOptions{Attempts: new(1)}},
			{Method: "cleanup", Options: &adminOptions{Tasks: []gworker.CleanupTask{gworker.DeletePermafailedJobs}}}},
		"everything": {{Method: "permanentlyFailJobs", IDs: all[2:6], Reason: "no"}, {Method: "forceUnlockWorkers", Workers: []string{"worker-2"}},
			{Method: "completeJobs", IDs: []int64{1, 17}},
			{Method: "cleanup", Options: &adminOptions{Tasks: []gworker.CleanupTask{gworker.DeletePermafailedJobs, gworker.GCTaskIdentifiers, gworker.GCJobQueues}}}},
	}
	forEachSide(t, func(t *testing.T, v side) {
		if v == gworkerSide {
			t.Skip("the others are compared with it")
		}
		for name, calls := range scripts {
			if v.isRust() && slices.Contains(notInRust, name) {
				continue
			}
			if v == rustSide(rust.V13) && slices.Contains([]string{"cleanup queues", "everything"}, name) {
				continue // it removes no queue while there is a job without one
			}
			ours, theirs := gworkerDatabase(t), gworkerDatabase(t)
			ours.arrangeAdministration()
			theirs.arrangeAdministration()
			before := ours.administered()
			touched, touchedByThem := gworkerSide.administer(t, ours.url, calls), v.administer(t, theirs.url, calls)
			if diff := cmp.Diff(touchedByThem, touched); diff != "" {
				t.Errorf("%s: jobs that were touched (-%s +gworker):\n%s", name, v, diff)
			}
			after, afterThem := ours.administered(), theirs.administered()
			if diff := cmp.Diff(afterThem, after); diff != "" {
				t.Errorf("%s: what is left (-%s +gworker):\n%s", name, v, diff)
			}
			if cmp.Equal(before, after) {
				t.Errorf("%s changed nothing: the test compares nothing", name)
			}
		}
	})
}

// Where our rule is wider than Node's it is so on purpose: a job that has had
// more attempts than it may have is as failed as one that has had just as many.
func TestCleanupOfJobsBeyondTheirAttempts(t *testing.T) {
	db := gworkerDatabase(t)
	db.arrangeAdministration()
	gworkerSide.administer(t, db.url, []adminCall{{Method: "cleanup", Options: &adminOptions{Tasks: []gworker.CleanupTask{gworker.DeletePermafailedJobs}}}})
	if left := db.administered().IDs; slices.Contains(left, 17) || len(left) != 15 {
		t.Errorf("left: %v", left)
	}
}

// Listings and cleanup work on the schema as Node makes it, which has no tables
// for recovery.
func TestAdministrationOnNodesSchema(t *testing.T) {
	forEachNode(t, func(t *testing.T, v node.Version) {
		db := nodeDatabase(t, v)
		db.arrangeAdministration()
		client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		workers, err := client.Workers(t.Context())
		if err != nil || len(workers) != 2 || workers[0].Runtime != "node" || workers[0].Registered || workers[0].Jobs != 3 {
			t.Errorf("workers: %+v, %v", workers, err)
		}
		page, err := client.ListJobs(t.Context(), gworker.JobFilter{States: []gworker.JobState{gworker.StateFailed}})
		if err != nil || len(page.Jobs) != 5 {
			t.Errorf("failed jobs: %+v, %v", page, err)
		}
		if stats, err := client.Stats(t.Context(), gworker.StatsOptions{}); err != nil || stats.Total() != 20 || stats.Failed != 5 {
			t.Errorf("stats: %+v, %v", stats, err)
		}
		if queues, err := client.Queues(t.Context(), gworker.QueueFilter{}); err != nil || len(queues.Queues) != 7 {
			t.Errorf("queues: %+v, %v", queues, err)
		}
		result, err := client.Cleanup(t.Context(), gworker.CleanupOptions{KeepTasks: []string{"kept"}})
		if err != nil || !slices.Equal(result.Tasks, []string{"it's", "unused"}) || !slices.Equal(result.Queues, []string{"unused"}) {
			t.Errorf("cleanup: %+v, %v", result, err)
		}
		if changed, err := client.CompleteJobs(t.Context(), []int64{1, 7}); err != nil || len(changed.Jobs) != 1 || len(changed.Untouched) != 1 {
			t.Errorf("completed: %+v, %v", changed, err)
		}
	})
}
