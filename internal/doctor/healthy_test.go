package doctor_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/doctor"
)

// oddName is a schema's name that must be quoted everywhere.
const oddName = `my "odd" $gw$ Schema's`

func TestAHealthyQueueHasNoFinding(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, name := range []string{"", oddName} {
		p := healthyIn(t, name)
		p.do("select graphile_worker.add_job('x', queue_name => 'q')")
		r := p.examine()
		wantOthersOK(t, r)
		worst := doctor.OK
		if slices.ContainsFunc(r.Findings, outlived) {
			worst = doctor.Warning
		}
		if r.Worst != worst || r.Revision != 20 || r.Server == "" || r.CheckedAt.IsZero() || r.Schema != p.name.String() {
			t.Errorf("%s", dump(t, r))
		}
	}
}

// Every check has one finding and one line in the documentation, and the
// documentation has no others.
func TestEveryCheckIsDocumented(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "## What it looks at")
	var documented, ids []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(list, -1) {
		documented = append(documented, match[1])
	}
	for _, f := range healthy(t).examine().Findings {
		ids = append(ids, f.ID)
	}
	if !slices.Equal(documented, ids) {
		t.Errorf("documented %q\nfound      %q", documented, ids)
	}
}

// In a session that can only read, with everything to report that the queue can
// have, the one finding more is that session's.
func TestTheDoctorOnlyReads(t *testing.T) {
	p := sick(t)
	before := p.examine()
	r := p.as(func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	}).examine()
	want(t, r, "read-only", doctor.Problem, "read-only by default")
	if len(r.Findings) != len(before.Findings) {
		t.Errorf("%d findings, %d where writing is allowed", len(r.Findings), len(before.Findings))
	}
	for _, f := range before.Findings {
		if now, _ := r.Find(f.ID); now.Severity != f.Severity && f.ID != "read-only" {
			t.Errorf("%+v where writing is allowed, else %+v", f, now)
		}
	}
	if r.Count(doctor.Problem) < 4 {
		t.Errorf("there was not much to report: %s", dump(t, r))
	}
}

// statements records what is sent.
type statements struct {
	mu   sync.Mutex
	sent []string
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, data.SQL)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

var reads = regexp.MustCompile(`^(\s|--.*\n)*(select|with)\b`)

// The server would refuse anything else in the doctor's transactions, and only
// selects are sent outside of them.
func TestEveryStatementIsOneThatReads(t *testing.T) {
	var s statements
	sick(t).as(func(c *pgxpool.Config) { c.ConnConfig.Tracer = &s }).examine()
	inside, own := false, 0
	for _, sql := range s.sent {
		switch {
		case sql == "begin read only":
			inside = true
		case sql == "commit", sql == "rollback":
			inside = false
		case !reads.MatchString(sql):
			t.Errorf("this is no select: %s", sql)
		case strings.HasPrefix(sql, "-- name: Doctor"):
			own++
			if !inside {
				t.Errorf("outside of a read-only transaction: %s", sql)
			}
		}
	}
	if own < 25 {
		t.Errorf("only %d statements were seen", own)
	}
}

func TestOneConnectionIsEnough(t *testing.T) {
	p := healthy(t).as(func(c *pgxpool.Config) { c.MaxConns = 1 })
	wantOthersOK(t, p.examine())
}

func TestALostConnectionIsAnError(t *testing.T) {
	p := healthy(t).as(func(c *pgxpool.Config) { c.ConnConfig.Port = 1 })
	r, err := doctor.Examine(t.Context(), p.pool, doctor.Options{})
	if err == nil || len(r.Findings) > 0 {
		t.Errorf("%v, %s", err, dump(t, r))
	}
}
