// Command listener keeps a service's settings in memory and reloads them when they
// change. It has nothing to do with jobs.
//
//	DATABASE_URL=postgres://localhost/test go run ./examples/listener
//
// Then, in psql:
//
//	INSERT INTO settings VALUES ('greeting', 'hello')
//	    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
//	NOTIFY settings_changed, 'greeting';
package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// Settings is a copy of the table settings.
type Settings struct {
	pool  *pgxpool.Pool
	stale bool // a look at the table has failed: load everything next time

	mu     sync.RWMutex
	values map[string]string
}

// Get returns a setting as it was when the table was last looked at.
func (s *Settings) Get(name string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.values[name]
}

// heard acts on notifications. After a gap nobody knows what has changed.
func (s *Settings) heard(ctx context.Context, batch gworker.ListenerBatch) {
	var err error
	if batch.Gap || s.stale {
		err = s.load(ctx)
	} else {
		names := make([]string, 0, len(batch.Notifications))
		for _, n := range batch.Notifications {
			names = append(names, n.Payload)
		}
		err = s.refresh(ctx, names)
	}
	// A service would try again by itself; here the next notification does.
	s.stale = err != nil
	if err != nil {
		log.Printf("settings are out of date: %v", err)
		return
	}
	fmt.Printf("greeting is now %q\n", s.Get("greeting"))
}

// load reads the whole table.
func (s *Settings) load(ctx context.Context) error {
	values, err := s.query(ctx, "SELECT name, value FROM settings")
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = values
	return nil
}

// refresh reads some settings; those that are no longer there are forgotten.
func (s *Settings) refresh(ctx context.Context, names []string) error {
	values, err := s.query(ctx, "SELECT name, value FROM settings WHERE name = ANY ($1)", names)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		delete(s.values, name)
	}
	maps.Copy(s.values, values)
	return nil
}

func (s *Settings) query(ctx context.Context, sql string, args ...any) (map[string]string, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		values[name] = value
		return nil
	})
	return values, err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv("DATABASE_URL")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, databaseURL string) error {
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	const table = "CREATE TABLE IF NOT EXISTS settings (name text PRIMARY KEY, value text NOT NULL)"
	if _, err := pool.Exec(ctx, table); err != nil {
		return err
	}

	listener, err := gworker.NewListener(gworker.ListenerConfig{
		Pool:     pool,
		Channels: []string{"settings_changed"},
		OnState: func(s gworker.ListenerState) {
			if s.Kind == gworker.ListenerStateLost {
				log.Printf("settings may get old: %v; next try in %s", s.Err, s.RetryIn)
			}
		},
	})
	if err != nil {
		return err
	}
	settings := &Settings{pool: pool}
	// The first batch is a gap, so this loads the settings to begin with.
	return listener.Run(ctx, settings.heard)
}
