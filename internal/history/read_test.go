package history

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gworker/gworker/history"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// A slot holds what is not below its beginning and below that of the next one.
func TestSlots(t *testing.T) {
	if slot(-1) != 0 || slot(math.NaN()) != 0 || slot(0) != 0 || slot(math.Inf(1)) != Slots-1 || slot(1e9) != Slots-1 {
		t.Error("slots at the ends")
	}
	for i := 1; i < Slots-1; i++ {
		if got := slot(begins(i) * 1.000001); got != i {
			t.Errorf("the beginning of slot %d is in %d", i, got)
		}
		if got := slot(begins(i) * 0.999999); got != i-1 {
			t.Errorf("what comes before slot %d is in %d", i, got)
		}
	}
	if day := 24 * time.Hour; begins(Slots-1) < day.Seconds() {
		t.Errorf("the last slot begins at %.0f s", begins(Slots-1))
	}
}

// A percentile is wrong by a factor of the square root of 2 at most, and the same whether
// counts are added up or not.
func TestPercentiles(t *testing.T) {
	var bins, half [Slots]int64
	var all []float64
	for i := range 10_000 {
		seconds := 0.0005 * math.Exp(float64(i)/1500)
		all = append(all, seconds)
		bins[slot(seconds)]++
		if i%2 == 0 {
			half[slot(seconds)]++
		}
	}
	slices.Sort(all)
	for _, part := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		got, want := Percentile(bins[:], part), all[int(part*float64(len(all)))-1]
		if got/want > math.Sqrt2 || want/got > math.Sqrt2 {
			t.Errorf("%v: %v, want %v", part, got, want)
		}
		if other := Percentile(half[:], part); math.Abs(other/got-1) > 0.05 {
			t.Errorf("%v: %v of all and %v of half of them", part, got, other)
		}
	}
	if got := Percentile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	if got := Percentile([]int64{0, 0, 4}, 0.5); got < begins(2) || got > begins(3) {
		t.Errorf("of one slot: %v", got)
	}
}

// Whatever time is asked for, each minute of it counts once: those that were added up, those
// that are not yet, and those of another span.
func TestStatsOfAnyTime(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	q := statement.NewSet(statement.Options{}).On(pool)
	testdb.Exec(t, pool, `
		insert into graphile_worker._gworker_stats
		select 'minute', m, task, 'w', 1, 1, 0, 0, 0, 0.5, 0.25, '{0,2}', '{2}'
		from generate_series(date_trunc('minute', now()) - interval '47 hours', date_trunc('minute', now()) - interval '1 minute', interval '1 minute') m, unnest(array['t', 'u']) task;
		update graphile_worker._gworker_journal set hours_until = date_trunc('hour', now()) - interval '48 hours',
			days_until = date_trunc('day', (now() - interval '48 hours') at time zone 'UTC') at time zone 'UTC'`)
	if problem, err := q.KeepHistory(t.Context(), dbgen.KeepHistoryParams{EventsFor: 7 * 86400, MinutesFor: 2 * 86400, HoursFor: 90 * 86400}); err != nil || problem != "" {
		t.Fatalf("%q, %v", problem, err)
	}
	reach, err := q.StatsReach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last, first := time.Time{}, time.Time{}
	testdb.Scan(t, pool, "select max(at), min(at) from graphile_worker._gworker_stats where span = 'minute'", nil, &last, &first)
	end := last.Add(time.Minute)
	inTime := func(since, until time.Time) int64 { return max(0, int64(until.Sub(since)/time.Minute)) }
	for _, ago := range []time.Duration{time.Minute, 17 * time.Minute, time.Hour, 95 * time.Minute, 5 * time.Hour, 24 * time.Hour, 25*time.Hour + 13*time.Minute} {
		for _, length := range []time.Duration{time.Minute, 59 * time.Minute, time.Hour, 3*time.Hour + time.Minute, 48 * time.Hour} {
			since := end.Add(-ago)
			until := since.Add(length)
			if until.After(end) {
				until = end
			}
			for _, by := range []history.Interval{history.Whole, history.Minute, history.Hour, history.Day} {
				from := since
				if by == history.Hour || by == history.Day || until.Sub(since) > 26*time.Hour {
					from = since.UTC().Truncate(time.Hour)
				}
				stats, err := Stats(t.Context(), q, history.StatsOptions{Since: since, Until: until, Tasks: []string{"t"}, By: by})
				if err != nil {
					t.Fatal(err)
				}
				var completed, rows int64
				for _, s := range stats {
					completed += s.Completed
					rows++
					if s.Failed != s.Completed || s.Ran.P50 < 100*time.Microsecond || s.Ran.P50 > 150*time.Microsecond || s.Ran.Mean != 250*time.Millisecond {
						t.Errorf("%+v", s)
					}
				}
				if want := inTime(from, until); completed != want {
					t.Errorf("since %s ago, for %s, by %q: %d minutes, want %d", ago, length, by, completed, want)
				}
				if by == history.Whole && rows > 1 || by == history.Minute && rows != completed {
					t.Errorf("by %q: %d rows of %d minutes", by, rows, completed)
				}
			}
		}
	}
	stats, err := Stats(t.Context(), q, history.StatsOptions{Since: reach.Now.Add(-20 * 24 * time.Hour), By: history.Day})
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, s := range stats {
		total += s.Completed
	}
	if want := 2 * inTime(end.Add(-47*time.Hour), end); total != want {
		t.Errorf("in 20 days by day: %d, want %d", total, want)
	}
}
