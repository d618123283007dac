package doctor_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/migrate"
)

// private is a patient on a server of its own.
func private(t testing.TB, settings map[string]string) patient {
	t.Helper()
	server, err := devpg.Start(t.Context(), devpg.Options{Fast: true, IgnoreEnvironment: true, Settings: settings, Database: "queue"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	p := newPatient(t, server.URL("queue"))
	if _, err := migrate.Up(t.Context(), p.pool, migrate.Options{}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOldTransactions(t *testing.T) {
	p := healthy(t)
	if _, err := p.session("reader").Exec(t.Context(), "begin isolation level repeatable read; select 1"); err != nil {
		t.Fatal(err)
	}
	writer := p.session("a writer")
	if _, err := writer.Exec(t.Context(), "begin; create table held (id int)"); err != nil {
		t.Fatal(err)
	}
	idle := p.session("idle") // holds back nothing
	if _, err := idle.Exec(t.Context(), "begin; select 1"); err != nil {
		t.Fatal(err)
	}
	want(t, p.examine(), "old-transactions", doctor.OK, "No old transaction")
	r := p.examine(doctor.Aged(6*time.Minute, 0))
	want(t, r, "old-transactions", doctor.Warning, "2 old transactions hold back vacuum", "application reader, role postgres, idle in transaction, for 6 min",
		fmt.Sprintf("select pg_terminate_backend(%d); -- a writer", writer.PgConn().PID()))
	wantOthersOK(t, r, "old-transactions")
	want(t, p.examine(doctor.Aged(2*time.Hour, 0)), "old-transactions", doctor.Problem, "for 2 h")
	p.helps(r, "old-transactions")
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		r = p.examine(doctor.Aged(2*time.Hour, 0))
		if r.Worst == doctor.OK {
			break
		}
	}
	wantOthersOK(t, r)
}

func TestPreparedTransactions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := private(t, map[string]string{"max_prepared_transactions": "2"})
	if _, err := p.session("x").Exec(t.Context(), "begin; create table held (id int); prepare transaction 'it''s'"); err != nil {
		t.Fatal(err)
	}
	wantOthersOK(t, p.examine())
	r := p.examine(doctor.Aged(6*time.Minute, 0))
	want(t, r, "prepared-transactions", doctor.Warning, "'it''s' of role postgres, for 6 min")
	wantOthersOK(t, r, "prepared-transactions")
	want(t, p.examine(doctor.Aged(time.Hour, 0)), "prepared-transactions", doctor.Problem)
	p.helps(r, "prepared-transactions")
	wantOthersOK(t, p.examine(doctor.Aged(time.Hour, 0)))
}

func TestReplication(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := private(t, nil)
	standby := p.standby("CREATE_REPLICATION_SLOT late PHYSICAL", "START_REPLICATION SLOT late PHYSICAL 0/0")
	p.until("select count(*) = 1 from pg_replication_slots where xmin is not null")
	wantOthersOK(t, p.examine())
	r := p.examine(doctor.Aged(0, 2_000_000))
	want(t, r, "replication-slots", doctor.Warning, "late (physical, in use), by 2,000,")
	wantOthersOK(t, r, "replication-slots")
	_ = standby.Close(context.Background())
	p.until("select count(*) = 1 from pg_replication_slots where not active")
	r = p.examine(doctor.Aged(0, 60_000_000))
	want(t, r, "replication-slots", doctor.Problem, "not in use", "pg_drop_replication_slot('late')")
	p.helps(r, "replication-slots")
	wantOthersOK(t, p.examine(doctor.Aged(0, 60_000_000)))

	p.standby("START_REPLICATION 0/0")
	p.until("select count(*) = 1 from pg_stat_replication where backend_xmin is not null")
	wantOthersOK(t, p.examine())
	r = p.examine(doctor.Aged(0, 2_000_000))
	want(t, r, "standby-feedback", doctor.Warning, "a standby (pid", "by 2,000,", "hot_standby_feedback = off")
	wantOthersOK(t, r, "standby-feedback")
	want(t, p.examine(doctor.Aged(0, 60_000_000)), "standby-feedback", doctor.Problem)
}

func (p patient) until(condition string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !value[bool](p, condition); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for: %s", condition)
		}
	}
}

// standby is a connection that replicates, and tells the server of a query that
// needs old rows. Of its commands the last one starts the replication, from the
// present instead of 0/0.
func (p patient) standby(commands ...string) *pgconn.PgConn {
	p.t.Helper()
	xmin := value[int64](p, "select txid_current()")
	config, err := pgconn.ParseConfig(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "true"
	config.RuntimeParams["application_name"] = "a standby"
	conn, err := pgconn.ConnectConfig(p.t.Context(), config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, command := range commands[:len(commands)-1] {
		if _, err := conn.Exec(p.t.Context(), command).ReadAll(); err != nil {
			p.t.Fatal(err)
		}
	}
	start := strings.TrimSuffix(commands[len(commands)-1], "0/0") + value[string](p, "select pg_current_wal_flush_lsn()::text")
	conn.Frontend().Send(&pgproto3.Query{String: start})
	if err := conn.Frontend().Flush(); err != nil {
		p.t.Fatal(err)
	}
	for {
		message, err := conn.ReceiveMessage(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		if _, started := message.(*pgproto3.CopyBothResponse); started {
			break
		}
	}
	// Hot standby feedback: a time, then xmin and epoch, twice.
	feedback := append([]byte{'h'}, make([]byte, 8)...)
	feedback = binary.BigEndian.AppendUint32(feedback, uint32(xmin))
	feedback = append(feedback, make([]byte, 12)...)
	conn.Frontend().Send(&pgproto3.CopyData{Data: feedback})
	if err := conn.Frontend().Flush(); err != nil {
		p.t.Fatal(err)
	}
	return conn
}
