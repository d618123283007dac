package listener_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/internal/listener"
)

func TestNewNamesTheField(t *testing.T) {
	connect := func(context.Context) (*pgx.Conn, error) { return nil, errors.New("never called") }
	good := []string{"c"}
	for field, config := range map[string]listener.Config{
		"Connect":      {Channels: good},
		"Channels":     {Connect: connect},
		"Channels[0]":  {Connect: connect, Channels: []string{""}},
		"Channels[1]":  {Connect: connect, Channels: []string{"c", strings.Repeat("x", 64)}},
		"Channels[2]":  {Connect: connect, Channels: []string{"c", "d", "c"}},
		"Channels[3]":  {Connect: connect, Channels: []string{"a", "b", "c", "\x00"}},
		"Channels[4]":  {Connect: connect, Channels: []string{"a", "b", "c", "d", "\xff"}},
		"Buffer":       {Connect: connect, Channels: good, Buffer: -1},
		"PingInterval": {Connect: connect, Channels: good, PingInterval: -time.Second},
	} {
		_, err := listener.New(config)
		var got *listener.FieldError
		if !errors.As(err, &got) || got.Field != field || !strings.Contains(err.Error(), field) {
			t.Errorf("for %s: %v", field, err)
		}
	}
}

func TestStateKind(t *testing.T) {
	for kind, want := range map[listener.StateKind]string{
		listener.Connecting: "connecting", listener.Connected: "connected", listener.Lost: "lost", 9: "StateKind(9)",
	} {
		if got := kind.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestInsertCount(t *testing.T) {
	for payload, want := range map[string]int{
		`{"count":1}`:                     1,
		`{"r":"0.1","count":25}`:          25,
		`{"count":0}`:                     0,
		`{"count":-3}`:                    -3,
		`{"count":2.9}`:                   2,
		`{"count":0.9}`:                   0,
		`{"count":-2.9}`:                  -2,
		`{"count":2e3}`:                   2000,
		`{"count":9223372036854775807}`:   math.MaxInt,
		`{"count":9223372036854775808}`:   math.MaxInt,
		`{"count":1e300}`:                 math.MaxInt,
		`{"count":-9223372036854775809}`:  math.MinInt,
		`{"count":-1e300}`:                math.MinInt,
		`{"count":5,"count":0}`:           0,
		`{"COUNT":0}`:                     1,
		`{"count":1e999}`:                 1,
		`{"count":-1e999}`:                1,
		`{"count":"0"}`:                   1,
		`{"count":null}`:                  1,
		`{"count":true}`:                  1,
		`{"count":[0]}`:                   1,
		`{"count":{}}`:                    1,
		`{"count":NaN}`:                   1,
		`{"count":00}`:                    1,
		`{"count":0} and more`:            1,
		`{"count":0`:                      1,
		`{}`:                              1,
		`[]`:                              1,
		`0`:                               1,
		`null`:                            1,
		``:                                1,
		"\x00\xff":                        1,
		strings.Repeat(`{"count":`, 1e5):  1,
		`{"count":-` + nines(5000) + `}`:  1,
		`{"count":0.` + nines(5000) + `}`: 1,
	} {
		if got := listener.InsertCount(payload); got != want {
			t.Errorf("%.60s: got %d, want %d", payload, got, want)
		}
	}
}

func nines(n int) string { return strings.Repeat("9", n) }
