package statement_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/migrate"
	"github.com/gworker/gworker/internal/schema"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// The server takes every statement of the program, whatever the schema's name:
// a text that breaks the rules of its rendering would name something else.
func TestEveryStatementInAnySchema(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for what, name := range map[string]string{"default": "", "odd": `it's "odd" $1 -- $gw$`} {
		t.Run(what, func(t *testing.T) {
			parsed, err := schema.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			pool := testdb.Pool(t, testdb.Empty(t))
			if _, err := migrate.Up(t.Context(), pool, migrate.Options{Schema: parsed}); err != nil {
				t.Fatal(err)
			}
			if err := migrate.UpHistory(t.Context(), pool, parsed); err != nil {
				t.Fatal(err)
			}
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			set := statement.NewSet(statement.Options{Schema: parsed})
			seen := map[string]bool{}
			for _, text := range dbgen.Texts {
				name := statement.Name(text)
				if seen[name] || name == "statement" {
					t.Errorf("statement name %q is missing or stands twice", name)
				}
				seen[name] = true
				if _, err := conn.Conn().Prepare(t.Context(), name, set.Text(text)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if len(seen) == 0 {
				t.Error("there are no statements")
			}
		})
	}
}

func TestPreparedOncePerConnectionOrNever(t *testing.T) {
	for _, unprepared := range []bool{false, true} {
		pool := testdb.Pool(t, testdb.Migrated(t))
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		queries := statement.NewSet(statement.Options{Unprepared: unprepared}).On(conn)
		for range 3 {
			if _, err := queries.TaskNames(t.Context(), []int32{1}); err != nil {
				t.Fatal(err)
			}
		}
		var prepared int
		err = conn.QueryRow(t.Context(), "select count(*) from pg_prepared_statements where statement like '-- name: TaskNames%'").Scan(&prepared)
		conn.Release()
		if want := map[bool]int{false: 1, true: 0}[unprepared]; err != nil || prepared != want {
			t.Errorf("unprepared %v: prepared %d times, want %d (%v)", unprepared, prepared, want, err)
		}
	}
}

func TestTimeoutNamesItsStatement(t *testing.T) {
	pool := testdb.Pool(t, testdb.Migrated(t))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table graphile_worker._private_tasks"); err != nil {
		t.Fatal(err)
	}
	queries := statement.NewSet(statement.Options{Timeout: 50 * time.Millisecond}).On(pool)
	_, err = queries.TaskNames(t.Context(), []int32{1})
	var timeout *statement.TimeoutError
	if !errors.As(err, &timeout) || timeout.Statement != "TaskNames" || timeout.After != 50*time.Millisecond ||
		!strings.Contains(err.Error(), "TaskNames did not end within 50ms") {
		t.Errorf("error %v", err)
	}

	// A context of the caller's that ends is not the statement's time-out.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = statement.NewSet(statement.Options{}).On(pool).TaskNames(ctx, []int32{1})
	if errors.As(err, &timeout) && timeout.After != 50*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
