package recovery_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/recovery"
)

// justStarted is what a process knows that has not watched anything yet.
func justStarted() (here, unbroken time.Duration) { return 0, math.MaxInt64 }

func (f *fixture) note(id string) string {
	f.t.Helper()
	return f.one(`select coalesce(metadata -> 'gworker:silence' ->> 'seen', 'none') from graphile_worker._private_workers where id = $1`, id)
}

// A process that has just started cannot tell an outage from a death. It notes what
// it sees, and one that starts later goes by that.
func TestSilenceThatAnEarlierProcessHasNoted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t)
	f.options.StaleAfter = time.Second
	f.options.Watched = justStarted
	f.register("gworker_dead", time.Hour, `{"a": 1}`)
	id := f.locked("gworker_dead", time.Hour, "")
	f.options.DryRun = true
	f.sweep()
	if note := f.note("gworker_dead"); note != "none" {
		t.Errorf("a dry run noted %s", note)
	}
	f.options.DryRun = false
	if result := f.sweep(); len(result.Workers) != 0 {
		t.Fatalf("the first sweep took %+v", result)
	}
	f.wantRow(id, "1|gworker_dead|-|now")
	first := f.note("gworker_dead")
	for end := time.Now().Add(time.Minute); ; {
		if result := f.sweep(); len(result.Workers) > 0 {
			break
		}
		if again := f.note("gworker_dead"); again != first || time.Now().After(end) {
			t.Fatalf("the note was %s and is %s", first, again)
		}
	}
	f.wantRow(id, "0|-|"+counted1+"|now")
	if age := f.one(`select (extract(epoch from now()) - $1::text::float8 >= 1)::text`, first); age != "true" {
		t.Error("it counted as dead within a second")
	}
}

// JSON has no number for a heartbeat of -infinity, and its silence is noted nevertheless.
func TestNotedSilenceSinceMinusInfinity(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.options.StaleAfter = 10 * time.Millisecond
	f.options.Watched = justStarted
	f.register("gworker_dead", time.Hour, `{"a": 1}`)
	f.locked("gworker_dead", time.Hour, "")
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = '-infinity'")
	for end := time.Now().Add(time.Minute); len(f.sweep().Workers) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not count as dead; the note is %s", f.note("gworker_dead"))
		}
	}
}

func TestWhatASweeperGoesByBeforeItHasWatched(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := newFixture(t)
	const note = `jsonb_build_object('gworker:silence', jsonb_build_object(
		'heartbeat', extract(epoch from last_heartbeat_at)::float8, 'seen', (extract(epoch from now()) - 0.5)::float8))`
	for name, c := range map[string]struct {
		metadata       string // SQL
		here, unbroken time.Duration
		id             string
		dead, noted    bool // noted now
	}{
		"no note":                       {metadata: "'{}'", noted: true},
		"no metadata":                   {metadata: "null", noted: true},
		"a note":                        {metadata: note, dead: true},
		"a note next to other members":  {metadata: `'{"runtime": "gworker"}' || ` + note, dead: true},
		"of a Rust worker":              {metadata: note, id: "graphile_worker_x", dead: true},
		"no note of a Rust worker":      {metadata: "null", id: "graphile_worker_x", noted: true},
		"of another heartbeat":          {metadata: `jsonb_set(` + note + `, '{gworker:silence,heartbeat}', '1.5')`, noted: true},
		"from before the server began":  {metadata: `jsonb_set(` + note + `, '{gworker:silence,seen}', to_jsonb(extract(epoch from pg_postmaster_start_time())::float8 - 1))`, noted: true},
		"from the future":               {metadata: `jsonb_set(` + note + `, '{gworker:silence,seen}', to_jsonb(extract(epoch from now())::float8 + 1000))`, noted: true},
		"unreadable":                    {metadata: `'{"gworker:silence": "x"}'`, noted: true},
		"of texts":                      {metadata: `'{"gworker:silence": {"heartbeat": "x", "seen": "y"}}'`, noted: true},
		"where none fits":               {metadata: `'["x"]'`},
		"from before an outage":         {metadata: note, unbroken: time.Millisecond, noted: true},
		"while the heartbeat is late":   {metadata: note, unbroken: 1, noted: true},
		"no note, but watched":          {metadata: "'{}'", here: time.Second, unbroken: time.Second, dead: true},
		"the worker may take longer":    {metadata: `'{"stale_after_seconds": 1000}' || ` + note},
		"watched, and may take longer":  {metadata: `'{"stale_after_seconds": 1000}'`, here: time.Second, unbroken: time.Second, noted: true},
		"watched for as long as it may": {metadata: `'{"stale_after_seconds": 1000}'`, here: 1000 * time.Second, unbroken: 1000 * time.Second, dead: true},
	} {
		t.Run(name, func(t *testing.T) {
			f.exec("truncate graphile_worker._private_workers, graphile_worker._private_jobs cascade")
			if c.id == "" {
				c.id = "gworker_x"
			}
			if c.unbroken == 0 {
				c.unbroken = math.MaxInt64
			}
			f.options.StaleAfter = 100 * time.Millisecond
			f.options.Watched = func() (here, unbroken time.Duration) { return c.here, c.unbroken }
			f.register(c.id, time.Hour, "{}")
			f.locked(c.id, time.Hour, "")
			f.exec("update graphile_worker._private_workers set metadata = " + c.metadata)
			before := f.one("select extract(epoch from clock_timestamp())::float8::text")
			if got := dead(f.sweep()); got != map[bool]string{true: fmt.Sprintf("[%s]", c.id), false: "[]"}[c.dead] {
				t.Errorf("declared dead: %s", got)
			}
			if c.dead {
				return
			}
			noted := f.one(`select coalesce((metadata #>> '{gworker:silence,seen}')::float8 > $1::text::float8 - 0.25, false)::text
				from graphile_worker._private_workers`, before)
			if strings.HasPrefix(c.metadata, "jsonb_set") && name == "from the future" {
				noted = f.one(`select ((metadata #>> '{gworker:silence,seen}')::float8 < $1::text::float8 + 500)::text
					from graphile_worker._private_workers`, before)
			}
			if noted != fmt.Sprint(c.noted) {
				t.Errorf("noted now: %s: %s", noted, f.one("select metadata::text from graphile_worker._private_workers"))
			}
		})
	}
}

// Unregistered holders have no place for a note: they are left to those that watch.
func TestUnregisteredHoldersAreNotTakenUnwatched(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.locked("gworker_gone", time.Hour, "")
	f.options.Watched = justStarted
	f.sweep()
	f.wantRow(id, "1|gworker_gone|-|now")
	f.options.Watched = func() (here, unbroken time.Duration) { return time.Minute, math.MaxInt64 }
	f.sweep()
	f.wantRow(id, "0|-|"+counted1+"|now")
}

// A healthy worker writes heartbeats again after an outage, which makes a note of its
// silence worthless.
func TestNoteOfAWorkerThatComesBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.options.StaleAfter = 10 * time.Millisecond
	f.options.Watched = justStarted
	k := newKept(f, "gworker_a")
	if err := k.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := k.Deregister(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	id := f.locked("gworker_a", time.Hour, "")
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'")
	f.sweep()
	if f.note("gworker_a") == "none" {
		t.Fatal("its silence was not noted")
	}
	if err := recovery.Beat(t.Context(), k.Heartbeat); err != nil {
		t.Fatal(err)
	}
	f.exec("update graphile_worker._private_workers set last_heartbeat_at = last_heartbeat_at - interval '2 hours'") // another outage
	f.sweep()
	f.wantRow(id, "1|gworker_a|-|now")
}
