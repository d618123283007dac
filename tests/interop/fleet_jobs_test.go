package interop_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
)

const (
	fleetQueues     = 20
	fleetKeyed      = 120 // more than all workers of the fleet take at once
	fleetScheduled  = "x"
	fleetCrontab    = "*/5 * * * * x ?id=fleet&fill=1h {}" // without a payload Rust leaves out the time
	fleetChurnKeys  = 20
	fleetLateBefore = 9 // attempts that a late job had before
)

var fleetTasks = []string{"work", "failing", "keyed", fleetScheduled}

// The kinds of jobs, and what each is to end as.
const (
	done     = "done"     // runs once, and is gone
	failed   = "failed"   // fails once, of one attempt
	twice    = "twice"    // fails twice, of two
	late     = "late"     // fails in its tenth attempt of 25, and waits for hours
	partial  = "partial"  // a batch of which one element fails
	obsolete = "obsolete" // replaced or removed at a time of its own: runs once or never
)

// fleetJobs are the jobs of a fleet by their number, which is in their payload.
type fleetJobs struct {
	specs []spec
	kinds map[int]string
	next  int // number
}

func newFleetJobs(size int) *fleetJobs {
	jobs := &fleetJobs{kinds: make(map[int]string)}
	for i := range size {
		s := spec{Task: "work"}
		kind, payload := done, `{"n":%d}`
		switch at := i % 100; {
		case i < fleetKeyed:
			s.Task, s.Key, s.Priority = "keyed", fmt.Sprintf("first %d", i), -10
		case at < 16: // pairs of one queue stand together, so that a claim of many meets both
			s.Queue = fmt.Sprintf("queue %d", i/2%fleetQueues)
		case at == 20:
			kind, payload, s.Task, s.MaxAttempts = failed, `{"n":%[1]d,"fail":"failed %[1]d"}`, "failing", 1
		case at == 21:
			kind, payload, s.Task, s.MaxAttempts = failed, `{"n":%[1]d,"fail":"failed %[1]d"}`, "failing", 1
			s.Queue = fmt.Sprintf("queue %d", i/100%fleetQueues)
		case at == 22:
			kind, payload, s.Task, s.MaxAttempts = twice, `{"n":%[1]d,"fail":"failed %[1]d"}`, "failing", 2
		case at == 23:
			kind, payload, s.Task, s.Key = late, `{"n":%[1]d,"fail":"failed %[1]d"}`, "failing", fmt.Sprintf("late %d", i)
		case at == 24:
			kind, payload, s.Task, s.MaxAttempts = partial, `[{"n":%[1]d},{"n":%[1]d,"fail":"failed %[1]d"},{"n":%[1]d}]`, "batch", 1
		case at == 25:
			payload, s.Task = `[{"n":%[1]d},{"n":%[1]d}]`, "batch"
		}
		s.Payload = json.RawMessage(fmt.Sprintf(payload, jobs.add(kind)))
		jobs.specs = append(jobs.specs, s)
	}
	return jobs
}

// add gives the next job its number.
func (f *fleetJobs) add(kind string) (number int) {
	f.kinds[f.next] = kind
	f.next++
	return f.next - 1
}

// prepare makes late jobs late, and an hour ago the last one that cron was seen.
func (f *fleetJobs) prepare(db *database) {
	db.t.Helper()
	db.exec("update graphile_worker._private_jobs set attempts = $1 where key like 'late %'", fleetLateBefore)
	db.exec("insert into graphile_worker._private_known_crontabs values ('fleet', now() - interval '2 hours', now() - interval '1 hour')")
}

// replaceRunning has a side's client replace the first keyed job that a worker runs.
func (f *fleetJobs) replaceRunning(t *testing.T, db *database, worker string, adder side) {
	t.Helper()
	id, key := db.runningKey(worker)
	payload := json.RawMessage(fmt.Sprintf(`{"n":%d}`, f.add(done)))
	adder.add(t, db.url, call{AddJob: &spec{Task: "keyed", Key: key, Payload: payload}})
	db.wantRetired(worker, id)
}

// removeRunning removes the next one, as every runtime's client does it.
func (f *fleetJobs) removeRunning(t *testing.T, db *database, worker string) {
	t.Helper()
	id, key := db.runningKey(worker)
	db.exec("select graphile_worker.remove_job($1)", key)
	db.wantRetired(worker, id)
}

// runningKey is a keyed job that runs on the worker.
func (db *database) runningKey(worker string) (id int64, key string) {
	db.t.Helper()
	type running struct {
		ID  int64
		Key string
	}
	found := query[running](db, `
		select j.id, j.key from interop.runs r join graphile_worker._private_jobs j on j.id = r.job_id
		where r.worker = $1 and r.ended_at is null and j.key is not null order by r.id limit 1`, worker)
	if len(found) == 0 {
		db.t.Fatalf("%s runs no keyed job", worker)
	}
	return found[0].ID, found[0].Key
}

func (db *database) wantRetired(worker string, id int64) {
	db.t.Helper()
	if !value[bool](db, `
		select key is null and attempts = max_attempts and locked_by is not null from graphile_worker._private_jobs where id = $1`, id) {
		db.t.Errorf("the job %d that %s runs is not retired: %+v", id, worker, db.jobs()[0])
	}
}

// churn replaces and removes jobs by key while the fleet works, until most is done.
// Of the versions of each key only the last one has to run.
func (f *fleetJobs) churn(t *testing.T, db *database) {
	t.Helper()
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: db.url})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	current := make(map[string]int)
	random := rand.New(rand.NewPCG(14, 3))
	var added, removed int
	for enough := db.pending() / 5; db.pending() > enough; {
		for range fleetChurnKeys {
			key := fmt.Sprintf("churn %d", random.IntN(fleetChurnKeys))
			if last, ok := current[key]; ok {
				f.kinds[last] = obsolete
				delete(current, key)
			}
			if random.IntN(4) == 0 {
				db.exec("select graphile_worker.remove_job($1)", key)
				removed++
				continue
			}
			n := f.add(done)
			current[key] = n
			payload := fmt.Sprintf(`{"n":%d}`, n)
			if added++; added%2 == 0 {
				db.exec("select graphile_worker.add_job('keyed', $1::text::json, job_key => $2, priority => -10)", payload, key)
			} else if _, err := client.AddJob(t.Context(), gworker.JobSpec{
				Task: "keyed", Payload: json.RawMessage(payload), Key: key, Priority: -10,
			}); err != nil {
				t.Fatalf("AddJob: %v", err)
			}
		}
	}
	t.Logf("while the fleet worked, %d jobs were added by %d keys and %d removed", added, fleetChurnKeys, removed)
}

// A fleetRun is a run as its handler recorded it.
type fleetRun struct {
	ID       int64
	N        *int // nil: cron's
	Task     string
	Worker   string
	Queue    string
	Attempts int
	RunAt    time.Time
	Started  time.Time
	Ended    *time.Time
}

// A fleetRest is a job that is left.
type fleetRest struct {
	N        int
	Payload  string
	Error    string
	Attempts int
	RunAt    time.Time
	Locked   bool
}

type fleetVerdict struct {
	runs      []fleetRun
	scheduled int
}

// judge compares what ran and what is left with what had to.
func (f *fleetJobs) judge(db *database) (v fleetVerdict) {
	t := db.t
	t.Helper()
	v.runs = query[fleetRun](db, `
		select id, (coalesce(job -> 'payload' -> 0, job -> 'payload') ->> 'n')::int, job ->> 'task', worker, queue, (job ->> 'attempts')::int,
			(job ->> 'runAt')::timestamptz, started_at, ended_at
		from interop.runs order by started_at, id`)
	rest := make(map[int]fleetRest)
	for _, r := range query[fleetRest](db, `
		select (coalesce(payload -> 0, payload) ->> 'n')::int, payload::jsonb::text, coalesce(last_error, ''), attempts, run_at, locked_at is not null
		from graphile_worker._private_jobs`) {
		rest[r.N] = r
	}
	runs := make(map[int][]fleetRun)
	for _, r := range v.runs {
		switch {
		case r.Ended == nil:
			t.Errorf("a run was not ended: %+v", r)
		case r.N == nil:
			v.scheduled++
		default:
			runs[*r.N] = append(runs[*r.N], r)
		}
	}
	wrong := 0
	for n := range f.next {
		left, isLeft := rest[n]
		if problem := f.wrong(n, runs[n], left, isLeft); problem != "" {
			if wrong++; wrong <= 10 {
				t.Errorf("job %d, %s: %s; its runs: %+v; left: %t %+v", n, f.kinds[n], problem, runs[n], isLeft, left)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d jobs are wrong", wrong)
	}
	judgeQueues(db, v.runs)
	judgeCron(db, v.scheduled)
	return v
}

// wrong says what is wrong with a job's end.
func (f *fleetJobs) wrong(n int, runs []fleetRun, left fleetRest, isLeft bool) string {
	want := map[string]int{done: 1, failed: 1, twice: 2, late: 1, partial: 1}[f.kinds[n]]
	switch kind := f.kinds[n]; {
	case kind == obsolete:
		if len(runs) > 1 || isLeft {
			return "want one run at most, and nothing left"
		}
		return ""
	case len(runs) != want:
		return fmt.Sprintf("ran %d times, want %d", len(runs), want)
	case kind == done:
		if isLeft {
			return "want nothing left"
		}
		return ""
	case !isLeft:
		return "want it left as failed"
	}
	before := 0
	if f.kinds[n] == late {
		before = fleetLateBefore
	}
	for i, r := range runs {
		if r.Attempts != before+i+1 {
			return fmt.Sprintf("run %d was attempt %d, want %d", i+1, r.Attempts, before+i+1)
		}
		next := left.RunAt
		if i+1 < len(runs) {
			next = runs[i+1].RunAt
		}
		// Each runtime counts from the moment at which it wrote the failure.
		failedAt := next.Add(-time.Duration(math.Exp(float64(r.Attempts)) * float64(time.Second)))
		if latest := time.Now().Add(time.Second); failedAt.Before(r.Started.Add(-time.Second)) || failedAt.After(latest) ||
			i+1 < len(runs) && failedAt.After(runs[i+1].Started) {
			return fmt.Sprintf("after attempt %d it waits until %s, which is counted from %s", r.Attempts, next, failedAt)
		}
	}
	if last := runs[len(runs)-1]; left.Attempts != last.Attempts || left.Locked {
		return fmt.Sprintf("want it unlocked after attempt %d", last.Attempts)
	} else if want := fleetError(f.kinds[n], n, last.Worker); left.Error != want {
		return fmt.Sprintf("want the error %q", want)
	}
	if want := fmt.Sprintf(`[{"n": %[1]d, "fail": "failed %[1]d"}]`, n); f.kinds[n] == partial && left.Payload != want {
		return fmt.Sprintf("want the payload %s", want)
	}
	return ""
}

// fleetError is what a worker writes of a failure.
func fleetError(kind string, n int, worker string) string {
	message, isRust := fmt.Sprintf("failed %d", n), strings.HasPrefix(worker, "rust")
	switch {
	case kind == partial && isRust:
		message = "1 batch item(s) failed: 1: " + message
	case kind == partial:
		message = "Batch failures:\n" + message
	}
	if isRust { // its Debug form
		return fmt.Sprintf("TaskError(%q)", message)
	}
	return message
}

// judgeQueues finds runs of one queue that overlap.
func judgeQueues(db *database, runs []fleetRun) {
	t := db.t
	t.Helper()
	queues := make(map[string][]fleetRun)
	for _, r := range runs {
		if r.Queue != "" {
			queues[r.Queue] = append(queues[r.Queue], r)
		}
	}
	if len(queues) != fleetQueues {
		t.Errorf("jobs of %d queues ran, want %d", len(queues), fleetQueues)
	}
	overlaps := 0
	for queue, runs := range queues {
		slices.SortFunc(runs, func(a, b fleetRun) int { return a.Started.Compare(b.Started) })
		for i, a := range runs {
			for _, b := range runs[i+1:] {
				if a.Ended == nil || !b.Started.Before(*a.Ended) {
					break
				}
				if overlaps++; overlaps <= 10 {
					t.Errorf("two jobs of %s ran at the same time: %+v and %+v", queue, a, b)
				}
			}
		}
	}
	if locked := value[int](db, `
		select count(*) from graphile_worker._private_job_queues where locked_by is not null or locked_at is not null`); locked > 0 {
		t.Errorf("%d queues are still locked", locked)
	}
}

// judgeCron finds the minutes that were scheduled twice or not at all.
func judgeCron(db *database, scheduled int) {
	t := db.t
	t.Helper()
	times := values[time.Time](db, `
		select (job -> 'payload' -> '_cron' ->> 'ts')::timestamptz from interop.runs where job ->> 'task' = $1 order by 1`, fleetScheduled)
	if len(times) != scheduled || scheduled < 11 {
		t.Errorf("cron's jobs ran %d times (%d have a time), want those of an hour", scheduled, len(times))
	}
	for i, at := range times {
		if at.Unix()%300 != 0 || i > 0 && at.Sub(times[i-1]) != 5*time.Minute {
			t.Errorf("cron's jobs are of %v, want one for every 5 minutes", times)
			return
		}
	}
}
