package gworker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

func TestListenerDelivers(t *testing.T) {
	url := testdb.Empty(t)
	pool := testdb.Pool(t, url)
	for name, config := range map[string]gworker.ListenerConfig{
		"of a URL":  {DatabaseURL: url},
		"of a pool": {Pool: pool},
	} {
		t.Run(name, func(t *testing.T) {
			config.Channels = []string{`An "odd" channel`, "other"}
			listener, err := gworker.NewListener(config)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			batches, result := make(chan gworker.ListenerBatch), make(chan error, 1)
			go func() {
				result <- listener.Run(ctx, func(ctx context.Context, batch gworker.ListenerBatch) {
					select {
					case batches <- batch:
					case <-ctx.Done():
					}
				})
			}()
			next := func() gworker.ListenerBatch {
				t.Helper()
				select {
				case batch := <-batches:
					return batch
				case <-time.After(patience):
					t.Fatal("nothing was delivered")
					return gworker.ListenerBatch{}
				}
			}
			if first := next(); !first.Gap {
				t.Errorf("the first batch is %+v: what came before is not known", first)
			}
			exec(t, pool, `select pg_notify('An "odd" channel', 'hello')`)
			got := next()
			want := gworker.ListenerNotification{Channel: `An "odd" channel`, Payload: "hello"}
			if got.Gap || len(got.Notifications) != 1 || got.Notifications[0] != want {
				t.Errorf("got %+v", got)
			}
			enough := errors.New("enough")
			cancel(enough)
			if err := <-result; err != nil {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}

func TestListenerConfigIsValidated(t *testing.T) {
	pool := migrated(t)
	ok := []string{"c"}
	for _, c := range []struct {
		config gworker.ListenerConfig
		field  string
	}{
		{gworker.ListenerConfig{}, "ListenerConfig.Channels"},
		{gworker.ListenerConfig{Channels: []string{"c", "c"}}, "ListenerConfig.Channels"},
		{gworker.ListenerConfig{Channels: []string{strings.Repeat("c", 64)}}, "ListenerConfig.Channels"},
		{gworker.ListenerConfig{Channels: ok, Buffer: -1}, "ListenerConfig.Buffer"},
		{gworker.ListenerConfig{Channels: ok, PingInterval: -1}, "ListenerConfig.PingInterval"},
		{gworker.ListenerConfig{Channels: ok, Pool: pool, DatabaseURL: "postgres://u:hunter2@h/d"}, "ListenerConfig.DatabaseURL"},
		{gworker.ListenerConfig{Channels: ok, DatabaseURL: "postgres://u:hunter2@h:port/d"}, "ListenerConfig.DatabaseURL"},
	} {
		_, err := gworker.NewListener(c.config)
		var field *gworker.FieldError
		if !errors.As(err, &field) || !strings.HasPrefix(field.Field, c.field) {
			t.Errorf("%+v: error %v, want one about %s", c.config, err, c.field)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}
