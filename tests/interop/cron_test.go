package interop_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/tests/interop/node"
	"github.com/gworker/gworker/tests/interop/rust"
)

// scheduled is a job of cron, with all that cron decides about it.
type scheduled struct {
	Task        string
	RunAt       time.Time
	Payload     string
	Queue       string
	Key         string
	MaxAttempts int
	Priority    int
}

// scheduledJobs are the jobs that cron added, those of missed minutes or those of
// minutes as they came.
func (db *database) scheduledJobs(backfilled bool) []scheduled {
	db.t.Helper()
	jobs := query[scheduled](db, `
		select t.identifier, j.run_at, j.payload::jsonb::text, coalesce(q.queue_name, ''), coalesce(j.key, ''),
			j.max_attempts, j.priority
		from graphile_worker._private_jobs j
		join graphile_worker._private_tasks t on t.id = j.task_id
		left join graphile_worker._private_job_queues q on q.id = j.job_queue_id
		where (j.payload->'_cron'->>'backfilled')::boolean = $1
		order by j.run_at, t.identifier`, backfilled)
	for i := range jobs {
		jobs[i].RunAt = jobs[i].RunAt.UTC()
	}
	return jobs
}

// awaitJobs waits until enough says so, looking whenever jobs are added.
func (db *database) awaitJobs(added *pgx.Conn, enough func() bool) {
	db.t.Helper()
	ctx, cancel := context.WithTimeout(db.t.Context(), deadline)
	defer cancel()
	for !enough() {
		if _, err := added.WaitForNotification(ctx); err != nil {
			db.t.Fatalf("waiting for cron's jobs: %v", err)
		}
	}
}

// hearJobs listens for added jobs.
func (db *database) hearJobs() *pgx.Conn {
	db.t.Helper()
	conn := db.connect()
	if _, err := conn.Exec(db.t.Context(), `listen "jobs:insert"`); err != nil {
		db.t.Fatalf("listening: %v", err)
	}
	return conn
}

// know makes identifiers known since a time, with a last execution or without.
func (db *database) know(identifier string, since, last time.Time) {
	db.t.Helper()
	db.exec(`insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
		values ($1, $2, $3)`, identifier, since, nullTime(last))
}

func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Whoever makes up for missed minutes, the rows are those of the rule.
func TestBackfillMakesTheSameRows(t *testing.T) {
	const crontab = `
*/10 * * * * often ?fill=2h&max=3&queue=q&priority=-5 {a: 'b', _cron: 1}
*/15 * * * * seldom ?id=known-late&fill=1w
*/30 * * * * resumed ?fill=1d
0 * * * * keyed ?fill=3h&jobKey=k
*/10 * * * * unfilled
*/10 * * * * unknown ?fill=1d`
	forEachSide(t, func(t *testing.T, s side) {
		if s == rustSide(rust.V13) {
			t.Skipf("%s ignores the option id", s)
		}
		db := gworkerDatabase(t)
		now := time.Now().UTC().Truncate(time.Minute)
		hour := now.Truncate(time.Hour)
		db.know("often", now.Add(-48*time.Hour), time.Time{})
		db.know("known-late", hour.Add(-90*time.Minute), time.Time{})
		db.know("resumed", now.Add(-48*time.Hour), hour.Add(-2*time.Hour))
		db.know("keyed", now.Add(-48*time.Hour), time.Time{})
		db.know("unfilled", now.Add(-48*time.Hour), time.Time{})

		added := db.hearJobs()
		crontab := crontab
		if s.isRust() {
			crontab = crontabForRust(crontab)
		}
		worker := s.startWorker(t, order{ConnectionString: db.url, Tasks: []string{"other"}, Concurrency: 1, Crontab: crontab}, newJournal())
		var start time.Time
		var want []scheduled
		db.awaitJobs(added, func() bool {
			if start.IsZero() {
				// What was not known before is known since the start.
				for _, since := range values[time.Time](db, `select known_since from graphile_worker._private_known_crontabs
					where identifier = 'unknown'`) {
					start = since.UTC()
				}
				if start.IsZero() {
					return false
				}
				want = missedJobs(start, hour)
			}
			return len(db.scheduledJobs(true)) >= len(want)
		})
		worker.stop(t)
		got := db.scheduledJobs(true)
		for i := range got {
			if s.isRust() { // which writes the time in another form of ISO 8601
				got[i].Payload = strings.Replace(got[i].Payload, ":00+00:00", ":00.000Z", 1)
			}
		}
		if found := diff.Diff(want, got); found != "" {
			t.Errorf("made up for, from a start at %s:\n%s", start, found)
		}
	})
}

// crontabForRust spells the options of job keys as the crate does, and gives each
// line a payload: see TestRustCronWithoutPayload.
func crontabForRust(crontab string) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(crontab, "jobKey", "job_key")), "\n")
	for i, line := range lines {
		if !strings.HasSuffix(line, "}") {
			lines[i] += " {}"
		}
	}
	return strings.Join(lines, "\n")
}

// missedJobs is what the rule makes of the crontab above.
func missedJobs(start, hour time.Time) (jobs []scheduled) {
	add := func(at time.Time, task string, more scheduled, extra string) {
		more.Task, more.RunAt = task, at
		more.Payload = fmt.Sprintf(`{%s"_cron": {"ts": %q, "backfilled": true}}`, extra, at.Format("2006-01-02T15:04:05.000Z"))
		if more.MaxAttempts == 0 {
			more.MaxAttempts = 25
		}
		jobs = append(jobs, more)
	}
	var keyed time.Time
	first := start.Add(-7 * 24 * time.Hour).Truncate(time.Minute)
	for at := first; at.Before(start); at = at.Add(time.Minute) {
		missed := start.Sub(at)
		if at.Minute() == 0 && missed <= 3*time.Hour {
			keyed = at // the last one replaces those before
		}
		if at.Minute()%10 == 0 && missed <= 2*time.Hour {
			add(at, "often", scheduled{Queue: "q", MaxAttempts: 3, Priority: -5}, `"a": "b", `)
		}
		if at.Minute()%30 == 0 && at.After(hour.Add(-2*time.Hour)) {
			add(at, "resumed", scheduled{}, "")
		}
		if at.Minute()%15 == 0 && !at.Before(hour.Add(-90*time.Minute)) {
			add(at, "seldom", scheduled{}, "")
		}
	}
	if !keyed.IsZero() {
		add(keyed, "keyed", scheduled{Key: "k"}, "")
	}
	slices.SortFunc(jobs, func(a, b scheduled) int {
		return cmp.Or(a.RunAt.Compare(b.RunAt), cmp.Compare(a.Task, b.Task))
	})
	return jobs
}

// Three gworkers, a Node and a Rust worker, with one crontab: each minute is
// scheduled once, those that were missed and the next one that comes.
func TestFleetSchedulesEachMinuteOnce(t *testing.T) {
	node.Require(t)
	rust.Require(t, rust.V14)
	const crontab = "* * * * * minutely ?fill=2h {}\n*/7 * * * * sevenfold ?fill=4h {a: 1}\n* * * * * unfilled {}"
	t.Parallel()
	v := node.V18
	db := gworkerDatabase(t)
	now := time.Now()
	for _, identifier := range []string{"minutely", "sevenfold", "unfilled"} {
		db.know(identifier, now.Add(-24*time.Hour), time.Time{})
	}
	added := db.hearJobs()
	o := order{ConnectionString: db.url, Tasks: []string{"other"}, Concurrency: 1, Crontab: crontab}
	var workers []*process
	for _, s := range []side{gworkerSide, nodeSide(v), rustSide(rust.V14), gworkerSide, gworkerSide} {
		workers = append(workers, s.startWorker(t, o, newJournal()))
	}
	// The minute that comes is there once all missed ones are.
	db.awaitJobs(added, func() bool { return len(db.scheduledJobs(false)) > 0 })
	for _, w := range workers {
		w.stop(t)
	}
	doubles := query[struct {
		Task  string
		RunAt time.Time
		Jobs  int
	}](db, `select t.identifier, j.run_at, count(*)::int from graphile_worker._private_jobs j
				join graphile_worker._private_tasks t on t.id = j.task_id group by 1, 2 having count(*) > 1`)
	if len(doubles) > 0 {
		t.Errorf("minutes that were scheduled more than once: %v", doubles)
	}
	// Nothing is left out between the first and the last minute.
	minutes := values[int](db, `select ((extract(epoch from max(j.run_at) - min(j.run_at)) / 60)::int + 1 - count(*))::int
				from graphile_worker._private_jobs j
				join graphile_worker._private_tasks t on t.id = j.task_id where t.identifier = 'minutely'`)
	if jobs := len(db.scheduledJobs(true)); minutes[0] != 0 || jobs < 120+4*60/7 {
		t.Errorf("%d minutes were left out; %d jobs of missed minutes", minutes[0], jobs)
	}
}
