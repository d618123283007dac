package gworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
)

type report struct {
	gworker.CronPayload
	Region string `json:"region"`
}

// remember makes the database know cron items since a time.
func remember(t *testing.T, config gworker.Config, since time.Time, identifiers ...string) {
	t.Helper()
	exec(t, config.Pool, `insert into graphile_worker._private_known_crontabs (identifier, known_since)
		select unnest($1::text[]), $2`, identifiers, since)
}

func TestCronRunsItemsOfBothKinds(t *testing.T) {
	payloads := make(chan report, 10)
	config := gworker.Config{
		Pool: migrated(t),
		Tasks: []gworker.Task{gworker.NewTask("report", func(_ context.Context, job *gworker.Job[report]) error {
			payloads <- job.Payload
			return nil
		})},
		Cron: gworker.CronConfig{
			Crontab: "* * * * * report ?id=text&fill=1m {region: 'eu'}",
			Items: []gworker.CronItem{{
				Schedule: "* * * * *", Task: "report", Identifier: "typed", Fill: time.Minute,
				TimeZone: "Asia/Tokyo", Payload: report{Region: "jp"},
			}},
		},
	}
	remember(t, config, time.Now().Add(-time.Hour), "text", "typed")
	w := start(t, config)
	seen := map[string]gworker.CronRun{}
	for len(seen) < 2 {
		select {
		case p := <-payloads:
			if p.Cron.Backfilled {
				seen[p.Region] = p.Cron
			}
		case <-time.After(patience):
			t.Fatalf("only %v ran", seen)
		}
	}
	eu, jp := seen["eu"], seen["jp"]
	if !eu.Time.Equal(jp.Time) || !eu.Time.Equal(eu.Time.Truncate(time.Minute)) {
		t.Errorf("the missed minutes are %s and %s", eu.Time, jp.Time)
	}
	if started := waitFor[event.CronStarted](t, w.Events, nil); started.WorkerID != w.ID() {
		t.Errorf("%+v", started)
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

func TestWorkerThatOnlySchedules(t *testing.T) {
	config := gworker.Config{
		Pool: migrated(t),
		Cron: gworker.CronConfig{Crontab: "* * * * * elsewhere ?fill=1m"},
	}
	remember(t, config, time.Now().Add(-time.Hour), "elsewhere")
	w := start(t, config)
	added := waitFor[event.CronBackfilled](t, w.Events, nil)
	if len(added.Jobs) != 1 || added.Jobs[0].Task != "elsewhere" || added.Jobs[0].JobID == 0 {
		t.Errorf("%+v", added)
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

func TestRunOnceHasNoCron(t *testing.T) {
	config := gworker.Config{
		Pool:  migrated(t),
		Tasks: []gworker.Task{gworker.NewRawTask("a", func(context.Context, *gworker.RawJob) error { return nil })},
		Cron:  gworker.CronConfig{Crontab: "* * * * * a ?fill=1h"},
	}
	remember(t, config, time.Now().Add(-time.Hour), "a")
	e := runOnce(t, config)
	if n := count[event.CronStarting](e); n != 0 || jobCount(t, config.Pool) != 0 {
		t.Errorf("cron started %d times, %d jobs", n, jobCount(t, config.Pool))
	}
	config.Tasks = nil
	runOnce(t, config)
}

func TestCronItemsAreListedAddedAndRemoved(t *testing.T) {
	config := gworker.Config{
		Pool:  migrated(t),
		Tasks: []gworker.Task{gworker.NewRawTask("a", func(context.Context, *gworker.RawJob) error { return nil })},
	}
	w := start(t, config)
	waitFor[event.WorkerStarted](t, w.Events, nil)
	item := gworker.CronItem{Schedule: "30 4 * * *", Task: "a", TimeZone: "Europe/Paris", Payload: map[string]int{"n": 1}, Key: "k"}
	if err := w.AddCronItem(item); err != nil {
		t.Fatal(err)
	}
	if err := w.AddCronItem(item); !errors.Is(err, gworker.ErrDuplicateCronItem) {
		t.Errorf("added twice: %v", err)
	}
	var field *gworker.FieldError
	if err := w.AddCronItem(gworker.CronItem{Schedule: "* * * *", Task: "a"}); !errors.As(err, &field) || field.Field != "CronItem.Schedule" {
		t.Errorf("a bad schedule: %v", err)
	}
	waitFor[event.CronStarted](t, w.Events, nil)
	var known string
	scan(t, config.Pool, "select identifier from graphile_worker._private_known_crontabs", nil, &known)
	if known != "a" {
		t.Errorf("%q is registered", known)
	}
	entries := w.CronItems()
	if len(entries) != 1 {
		t.Fatalf("%d entries", len(entries))
	}
	e := entries[0]
	if raw, ok := e.Payload.(json.RawMessage); !ok || string(raw) != `{"n":1}` || e.Identifier != "a" || e.Key != "k" {
		t.Errorf("%+v", e)
	}
	if local := e.Next.Format("15:04"); local != "04:30" || e.Next.Before(time.Now()) || e.Next.Location().String() != "Europe/Paris" {
		t.Errorf("next is %s", e.Next)
	}
	if !w.RemoveCronItem("a") || w.RemoveCronItem("a") || len(w.CronItems()) != 0 {
		t.Error("an entry is not removed once")
	}
}

func TestCronConfigIsValidated(t *testing.T) {
	item := gworker.CronItem{Schedule: "* * * * *", Task: "a"}
	change := func(f func(*gworker.CronItem)) gworker.CronConfig {
		changed := item
		f(&changed)
		return gworker.CronConfig{Items: []gworker.CronItem{item, changed}}
	}
	for field, config := range map[string]gworker.CronConfig{
		"Config.Cron.Crontab":              {Crontab: "* * * * * a\n60 * * * * b\n* * * * * a"},
		"Config.Cron.Items[0].Identifier":  {Crontab: "* * * * * a", Items: []gworker.CronItem{item}},
		"Config.Cron.Items[1].Identifier":  change(func(*gworker.CronItem) {}),
		"Config.Cron.Items[1].Schedule":    change(func(i *gworker.CronItem) { i.Schedule = "0 24 * * *" }),
		"Config.Cron.Items[1].TimeZone":    change(func(i *gworker.CronItem) { i.TimeZone = "Mars" }),
		"Config.Cron.Items[1].Task":        change(func(i *gworker.CronItem) { i.Task = "" }),
		"Config.Cron.Items[1].Payload":     change(func(i *gworker.CronItem) { i.Payload = []int{1} }),
		"Config.Cron.Items[1].Fill":        change(func(i *gworker.CronItem) { i.Fill = -1 }),
		"Config.Cron.Items[1].MaxAttempts": change(func(i *gworker.CronItem) { i.MaxAttempts = 40000 }),
		"Config.Cron.Items[1].KeyMode":     change(func(i *gworker.CronItem) { i.KeyMode = gworker.KeyUnsafeDedupe }),
		"Config.Cron.Items[1].Priority":    change(func(i *gworker.CronItem) { i.Priority = 40000 }),
		"Config.Cron.Items[1].Queue":       change(func(i *gworker.CronItem) { i.Queue = strings.Repeat("q", 129) }),
		"Config.Cron.Items[1].Key":         change(func(i *gworker.CronItem) { i.Key = "a\x00" }),
	} {
		_, err := gworker.NewWorker(gworker.Config{Cron: config})
		var found *gworker.FieldError
		if !errors.As(err, &found) || found.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := gworker.NewWorker(gworker.Config{Cron: gworker.CronConfig{Crontab: "* * * * * a\n60 * * * * b\n* * * * * a"}})
	if err == nil || !strings.Contains(err.Error(), "line 2: minute") || !strings.Contains(err.Error(), "line 3: id") {
		t.Errorf("not every error is there: %v", err)
	}
}

func TestParseCrontab(t *testing.T) {
	items, err := gworker.ParseCrontab("0 4 * * * a ?id=x&fill=1h&tz=Europe/Paris {n: 1}\nbad\n* * * * * b")
	var all gworker.CrontabErrors
	var one *gworker.CrontabError
	if !errors.As(err, &all) || len(all) != 1 || !errors.As(err, &one) || one.Line != 2 {
		t.Errorf("the error is %v", err)
	}
	if len(items) != 2 || items[0].Identifier != "x" || items[0].Fill != time.Hour || items[0].TimeZone != "Europe/Paris" {
		t.Fatalf("%+v", items)
	}
	times, err := items[0].Next(time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), 2)
	if err != nil || len(times) != 2 || times[0].Format(time.RFC3339) != "2026-07-01T04:00:00+02:00" {
		t.Errorf("%v %v", times, err)
	}
	if _, err := gworker.ParseCrontab(""); err != nil {
		t.Error(err)
	}
}

// The crontab that docs/cron.md begins with is one.
func TestCrontabOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("docs/cron.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```\n# minute")
	crontab, _, found := strings.Cut(rest, "```")
	items, err := gworker.ParseCrontab("# minute" + crontab)
	if !found || err != nil || len(items) != 3 || items[2].TimeZone != "Europe/Paris" {
		t.Errorf("%+v: %v", items, err)
	}
}

// TestCronGoesByTheWorkersTime: with a clock of its own, the worker's minutes are
// that clock's.
func TestCronGoesByTheWorkersTime(t *testing.T) {
	future := time.Now().Add(1000 * time.Hour)
	config := gworker.Config{
		Pool: migrated(t), Now: func() time.Time { return future },
		Tasks: []gworker.Task{gworker.NewTask("report", func(context.Context, *gworker.Job[report]) error { return nil })},
		Cron:  gworker.CronConfig{Crontab: "* * * * * report ?fill=1m"},
	}
	remember(t, config, time.Now(), "report")
	w := start(t, config)
	done := waitFor[event.CronBackfilled](t, w.Events, nil)
	if want := future.Truncate(time.Minute); !done.Minute.Equal(want) {
		t.Errorf("the minute is %s, want %s", done.Minute, want)
	}
	if next := w.CronItems()[0].Next; !next.After(future) || next.Sub(future) > time.Minute {
		t.Errorf("at %s the item is due next at %s", future, next)
	}
	waitFor[event.JobCompleted](t, w.Events, nil) // by the same clock it is due
}
