package listener_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/gworker/gworker/internal/listener"
)

func FuzzInsertCount(f *testing.F) {
	for _, payload := range []string{
		"", "null", "{}", `{"count":1}`, `{"count":-3}`, `{"r":0.5,"count":2.9}`, `{"count":1e999}`, `{"count":"1"}`,
		`{"Count":7}`, `{"count":1,"count":2}`, "[[[[", "\x00", `{"count":9223372036854775808}`,
	} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		got := listener.InsertCount(payload)
		var members map[string]any
		if json.Unmarshal([]byte(payload), &members) != nil {
			if got != 1 {
				t.Errorf("%q, which is no object, counts as %d", payload, got)
			}
			return
		}
		n, ok := members["count"].(float64)
		switch {
		case !ok && got != 1:
			t.Errorf("%q without a number counts as %d", payload, got)
		case ok && math.Abs(n) < 1<<52 && got != int(n):
			t.Errorf("%q counts as %d, want %d", payload, got, int(n))
		case ok && (n > 0) != (got > 0) && math.Abs(n) >= 1:
			t.Errorf("%q counts as %d", payload, got)
		}
	})
}
