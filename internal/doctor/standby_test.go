package doctor_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/doctor"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/testdb"
)

// A standby can be read: everything else is reported as on the primary.
func TestAStandby(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := testdb.OpenDir(t)
	server, err := devpg.Start(t.Context(), devpg.Options{DataDir: dir, Fast: true, IgnoreEnvironment: true, Database: "queue"})
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
	p.pool.Close()
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pgdata", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// devpg waits for a server that can be written to, which this one does not
	// become. Its end ends the server.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Restart(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(t.Context(), p.url)
		if err == nil {
			_ = conn.Close(t.Context())
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	r := newPatient(t, p.url).examine()
	want(t, r, "read-only", doctor.Problem, "is a standby", "target_session_attrs=read-write")
	wantOthersOK(t, r, "read-only")
}
