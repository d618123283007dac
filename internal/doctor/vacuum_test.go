package doctor_test

import (
	"testing"
	"time"

	"github.com/gworker/gworker/internal/doctor"
)

func TestAutovacuumOffForATable(t *testing.T) {
	p := healthyIn(t, oddName)
	p.do("alter table graphile_worker._private_jobs set (autovacuum_enabled = off, fillfactor = 90)")
	r := p.examine()
	want(t, r, "autovacuum", doctor.Problem, "_private_jobs")
	wantOthersOK(t, r, "autovacuum")
	p.helps(r, "autovacuum")
	wantOthersOK(t, p.examine())
	p.do("alter table graphile_worker._private_jobs set (autovacuum_enabled = true)")
	wantOthersOK(t, p.examine())
}

func TestDeadRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := healthyIn(t, oddName)
	p.do("alter table graphile_worker._private_jobs set (autovacuum_enabled = off)")
	p.do("select graphile_worker.add_job('x')")
	p.do(`insert into graphile_worker._private_jobs (task_id, run_at)
		select t.id, now() + interval '1 day' from graphile_worker._private_tasks t, generate_series(1, 60000)`)
	p.do("delete from graphile_worker._private_jobs where id > 1")
	var r doctor.Report
	// The server counts a moment later.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r = p.examine()
		if f, _ := r.Find("dead-rows"); f.Severity != doctor.OK {
			break
		}
	}
	want(t, r, "dead-rows", doctor.Warning, "_private_jobs has 60,000 dead rows", "never vacuumed", "autovacuum_vacuum_scale_factor = 0")
	wantOthersOK(t, r, "dead-rows", "autovacuum")
	p.helps(r, "dead-rows")
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r = p.examine()
		if f, _ := r.Find("dead-rows"); f.Severity == doctor.OK {
			break
		}
	}
	want(t, r, "dead-rows", doctor.OK, "vacuumed ")
}

func TestDeadRowsAreJudgedByTheLiveOnes(t *testing.T) {
	for _, c := range []struct {
		live, dead int64
		want       doctor.Severity
	}{
		{0, 0, doctor.OK}, {0, 49_999, doctor.OK}, {0, 50_000, doctor.Warning}, {50_000, 50_000, doctor.OK},
		{10_000_000, 10_000_000, doctor.OK}, {1_000_000, 9_000_000, doctor.Warning}, {500_000, 5_000_000, doctor.Problem},
	} {
		if got := doctor.JudgeDead(c.live, c.dead); got != c.want {
			t.Errorf("%d live and %d dead rows: %s, want %s", c.live, c.dead, got, c.want)
		}
	}
}

// doAndLeave does something in a session of its own, which tells the server what
// it has changed when it ends, and not a second later.
func (p patient) doAndLeave(sql string) {
	p.t.Helper()
	conn := p.session("leaving")
	if _, err := conn.Exec(p.t.Context(), p.name.Render(sql)); err != nil {
		p.t.Fatal(err)
	}
	if err := conn.Close(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	p.until("select count(*) = 0 from pg_stat_activity where application_name = 'leaving' and datname = current_database()")
}

func TestBloat(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := healthyIn(t, oddName)
	p.do("alter table graphile_worker._private_jobs alter column payload set storage plain")
	p.do("insert into graphile_worker._private_tasks (identifier) values ('x')")
	p.doAndLeave(`insert into graphile_worker._private_jobs (task_id, payload)
		select t.id, to_json(repeat('x', 1800)) from graphile_worker._private_tasks t, generate_series(1, 40000)`)
	// As after a crash: nobody has counted the rows.
	p.do("select pg_stat_reset()")
	want(t, p.examine(), "bloat", doctor.OK, "78 MB")
	// The last row stays, so that vacuum cannot cut the file off.
	p.doAndLeave("delete from graphile_worker._private_jobs where id < 40000")
	p.do("vacuum (analyze) graphile_worker._private_jobs")
	var r doctor.Report
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r = p.examine()
		if f, _ := r.Find("bloat"); f.Severity != doctor.OK {
			break
		}
	}
	want(t, r, "bloat", doctor.Warning, "_private_jobs takes 78 MB for 1 row", "vacuum (full, analyze)")
	wantOthersOK(t, r, "bloat")
	p.helps(r, "bloat")
	want(t, p.examine(), "bloat", doctor.OK)
}
