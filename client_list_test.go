package gworker_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// listed are the ids of the first page.
func listed(t *testing.T, c administrator, f gworker.JobFilter) []int64 {
	t.Helper()
	page, err := c.ListJobs(t.Context(), f)
	if err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	ids := []int64{}
	for _, job := range page.Jobs {
		ids = append(ids, job.ID)
	}
	return ids
}

// Every way to read jobs tells the same state.
func TestStatesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, _ func()) {
		counted := map[gworker.JobState]int64{}
		for id, want := range stateOf {
			counted[want]++
			one, err := c.GetJob(t.Context(), id)
			if err != nil || one.State != want {
				t.Errorf("GetJob(%d): %+v, %v, want %s", id, one, err, want)
				continue
			}
			byKey, err := c.GetJobByKey(t.Context(), one.Key)
			if err != nil || byKey.ID != id || byKey.State != want {
				t.Errorf("GetJobByKey(%q): %+v, %v, want %s", one.Key, byKey, err, want)
			}
			if id == idBlocked && (one.QueueLockedBy != "gworker_x" || one.QueueLockedAt.IsZero()) {
				t.Errorf("the blocked job waits for %q", one.QueueLockedBy)
			}
		}
		all := []gworker.JobState{gworker.StateScheduled, gworker.StateReady, gworker.StateBlocked, gworker.StateRunning, gworker.StateRetrying, gworker.StateFailed}
		// Each set of states.
		for set := range 1 << len(all) {
			var states []gworker.JobState
			for i, s := range all {
				if set&(1<<i) != 0 {
					states = append(states, s)
				}
			}
			want := []int64{}
			for id, s := range stateOf {
				if len(states) == 0 || slices.Contains(states, s) {
					want = append(want, id)
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, listed(t, c, gworker.JobFilter{States: states})); diff != "" {
				t.Errorf("states %v (-want +got):\n%s", states, diff)
			}
			slices.Reverse(want)
			if diff := cmp.Diff(want, listed(t, c, gworker.JobFilter{States: states, Order: gworker.OrderNewestFirst})); diff != "" {
				t.Errorf("states %v, newest first (-want +got):\n%s", states, diff)
			}
		}
		client := newClient(t, pool)
		stats, err := client.Stats(t.Context(), gworker.StatsOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := map[gworker.JobState]int64{
			gworker.StateScheduled: stats.Scheduled, gworker.StateReady: stats.Ready, gworker.StateBlocked: stats.Blocked,
			gworker.StateRunning: stats.Running, gworker.StateRetrying: stats.Retrying, gworker.StateFailed: stats.Failed,
		}
		if diff := cmp.Diff(counted, got); diff != "" || stats.Total() != int64(len(stateOf)) {
			t.Errorf("Stats (-want +got):\n%s", diff)
		}
	})
}

// The definition of the states is one text, wherever it stands.
func TestOneDefinitionOfStates(t *testing.T) {
	text, err := os.ReadFile("db/queries/admin.sql")
	if err != nil {
		t.Fatal(err)
	}
	cases := regexp.MustCompile(`(?s)\(case\s+when j\.locked_at.*?end\)`).FindAllString(string(text), -1)
	for _, c := range cases {
		if one, other := strings.Fields(cases[0]), strings.Fields(c); !slices.Equal(one, other) {
			t.Errorf("two definitions:\n%s\n%s", cases[0], c)
		}
	}
	if names := strings.Count(string(text), "'scheduled' then") + strings.Count(string(text), "then 'scheduled'"); len(cases) < 10 || names != len(cases) {
		t.Errorf("%d definitions were found, and %d mentions", len(cases), names)
	}
}

func TestListFilters(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	eachWay(t, func(t *testing.T, pool *pgxpool.Pool, c administrator, _ func()) {
		exec(t, pool, `update graphile_worker._private_jobs set flags = '{"red": true, "a,b": true}', priority = 5 where id = 2`)
		exec(t, pool, `update graphile_worker._private_jobs set flags = '{"red": true}', priority = -5, created_at = now() - interval '2 days',
			updated_at = now() - interval '1 day' where id = 3`)
		now := time.Now()
		for name, f := range map[string]struct {
			filter gworker.JobFilter
			want   []int64
		}{
			"task":            {gworker.JobFilter{Tasks: []string{"b"}}, []int64{3, 4, 5, 9, 10}},
			"tasks":           {gworker.JobFilter{Tasks: []string{"b", "a", "none"}, Limit: 3}, []int64{1, 2, 3}},
			"no such task":    {gworker.JobFilter{Tasks: []string{"none"}}, []int64{}},
			"queue":           {gworker.JobFilter{Queues: []string{"held"}}, []int64{4, 5}},
			"no queue":        {gworker.JobFilter{Queues: []string{"", "free"}, Tasks: []string{"b"}}, []int64{3, 9, 10}},
			"key":             {gworker.JobFilter{Keys: []string{"key 7", "key 70"}}, []int64{7}},
			"worker":          {gworker.JobFilter{Workers: []string{"pool-old"}}, []int64{7}},
			"flag":            {gworker.JobFilter{Flags: []string{"red"}}, []int64{2, 3}},
			"flags":           {gworker.JobFilter{Flags: []string{"a,b", "red"}}, []int64{2}},
			"error":           {gworker.JobFilter{ErrorContains: "BOOM"}, []int64{3, 6, 8}},
			"error, longer":   {gworker.JobFilter{ErrorContains: "boom for"}, []int64{6}},
			"error, wildcard": {gworker.JobFilter{ErrorContains: "b%m"}, []int64{}},
			"priority":        {gworker.JobFilter{MinPriority: new(1)}, []int64{2}},
			"priorities":      {gworker.JobFilter{MinPriority: new(-1 << 40), MaxPriority: new(-5)}, []int64{3}},
			"run at":          {gworker.JobFilter{RunAt: gworker.TimeRange{From: now.Add(time.Minute)}}, []int64{2, 3}},
			"run at before":   {gworker.JobFilter{RunAt: gworker.TimeRange{Before: now.Add(time.Minute)}, Tasks: []string{"a"}}, []int64{1, 6, 7, 8}},
			"created":         {gworker.JobFilter{CreatedAt: gworker.TimeRange{Before: now.Add(-time.Hour)}}, []int64{3}},
			"updated": {gworker.JobFilter{UpdatedAt: gworker.TimeRange{From: now.Add(-25 * time.Hour), Before: now.Add(-23 * time.Hour)}},
				[]int64{3}},
			"all of it": {gworker.JobFilter{Tasks: []string{"b"}, States: []gworker.JobState{gworker.StateRetrying}, ErrorContains: "oo", Flags: []string{"red"}},
				[]int64{3}},
			"next": {gworker.JobFilter{Order: gworker.OrderNext}, []int64{3, 1, 5, 8, 9, 2}},
			"next, by task": {gworker.JobFilter{Order: gworker.OrderNext, Tasks: []string{"a"}, States: []gworker.JobState{gworker.StateReady, gworker.StateScheduled}},
				[]int64{1, 8, 2}},
		} {
			if diff := cmp.Diff(f.want, listed(t, c, f.filter)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		for _, with := range []bool{false, true} {
			page, err := c.ListJobs(t.Context(), gworker.JobFilter{WithPayload: with, Keys: []string{"key 2"}})
			if err != nil || len(page.Jobs) != 1 || (string(page.Jobs[0].Payload) == `{"n" : 2}`) != with || (page.Jobs[0].Payload == nil) == with {
				t.Errorf("payload %v: %+v, %v", with, page.Jobs, err)
			}
		}
		// What is listed is what is stored.
		whole, err := c.GetJob(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		page, err := c.ListJobs(t.Context(), gworker.JobFilter{WithPayload: true, Keys: []string{"key 2"}})
		if err != nil {
			t.Fatal(err)
		}
		want := gworker.JobRow{
			ID: 2, Task: "a", Payload: json.RawMessage(`{"n" : 2}`), Priority: 5, MaxAttempts: 5, Key: "key 2", Flags: []string{"a,b", "red"},
		}
		times := cmpopts.IgnoreFields(gworker.JobRow{}, "RunAt", "CreatedAt", "UpdatedAt")
		if diff := cmp.Diff(want, whole.JobRow, times); diff != "" {
			t.Errorf("GetJob (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(whole.JobRow, page.Jobs[0].JobRow, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("listed (-got +listed):\n%s", diff)
		}
	})
}

// While jobs are added and deleted, each job that is there all the while is
// listed once, in order.
func TestPagingWhileJobsComeAndGo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, order := range []gworker.JobOrder{gworker.OrderByID, gworker.OrderNewestFirst, gworker.OrderNext} {
		t.Run(string(order), func(t *testing.T) {
			pool := migrated(t)
			client := newClient(t, pool)
			// Many share priority and time, and some have times beyond all.
			exec(t, pool, `select graphile_worker.add_job('stays', priority => n % 3,
				run_at => case n % 4 when 0 then timestamptz '-infinity' when 1 then timestamptz '2031-01-01 00:00:00.123456Z'
					when 2 then 'infinity' else now() end)
				from generate_series(1, 60) n`)
			want := listed(t, client, gworker.JobFilter{Order: order})
			if len(want) != 60 {
				t.Fatalf("%d jobs", len(want))
			}
			var got []int64
			filter := gworker.JobFilter{Order: order, Limit: 7, Tasks: []string{"stays"}}
			for {
				page, err := client.ListJobs(t.Context(), filter)
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Jobs) > 7 {
					t.Fatalf("a page of %d jobs", len(page.Jobs))
				}
				for _, job := range page.Jobs {
					got = append(got, job.ID)
				}
				if filter.Cursor = page.NextCursor; filter.Cursor == "" {
					break
				}
				exec(t, pool, `select graphile_worker.add_job('comes', priority => n) from generate_series(-5, 5) n`)
				exec(t, pool, `delete from graphile_worker._private_jobs where id = (select max(id) from graphile_worker._private_jobs)`)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}
		})
	}
}

// Cursors of others' making are refused or harmless.
func FuzzCursor(f *testing.F) {
	pool := testdb.Pool(f, testdb.Migrated(f))
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := pool.Exec(f.Context(), "select graphile_worker.add_job('x', queue_name => 'q' || n) from generate_series(1, 3) n"); err != nil {
		f.Fatal(err)
	}
	for _, order := range []gworker.JobOrder{gworker.OrderByID, gworker.OrderNext} {
		page, err := client.ListJobs(f.Context(), gworker.JobFilter{Order: order, Limit: 1})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(page.NextCursor)
	}
	for _, cursor := range []string{
		"x", "bnVsbA", "e30", "eyJvIjoiaWQifQ", "eyJvIjoibmV4dCIsImkiOjEsInIiOjkyMjMzNzIwMzY4NTQ3NzU4MDd9", "eyJxIjoiXHUwMDAwIn0", "eyJvIjoibmV4dCIsImYiOjV9",
		base64.RawURLEncoding.EncodeToString([]byte(`{"o":"next","i":1,"r":-9223372036854775808}`)),
		base64.RawURLEncoding.EncodeToString([]byte(`{"o":"next","i":1,"r":-210866803200000000}`)),
	} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		for _, order := range []gworker.JobOrder{gworker.OrderByID, gworker.OrderNewestFirst, gworker.OrderNext} {
			_, err := client.ListJobs(t.Context(), gworker.JobFilter{Cursor: cursor, Order: order})
			if refused := new(gworker.FieldError); err != nil && !errors.As(err, &refused) {
				t.Errorf("order %s, cursor %q: %v", order, cursor, err)
			}
		}
		_, err := client.Queues(t.Context(), gworker.QueueFilter{Cursor: cursor})
		if refused := new(gworker.FieldError); err != nil && !errors.As(err, &refused) {
			t.Errorf("queues, cursor %q: %v", cursor, err)
		}
	})
}
