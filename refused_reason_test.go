package gworker_test

import (
	"testing"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/testdb"
)

// TestReasonsFitEveryEncoding: a reason that the database's encoding cannot hold is
// stored in escapes.
func TestReasonsFitEveryEncoding(t *testing.T) {
	var sample testdb.Sample
	for _, encoding := range []string{"EUC_JP", "LATIN1"} {
		t.Run(encoding, func(t *testing.T) {
			sample.Take(t)
			t.Parallel()
			pool := inEncoding(t, encoding)
			client := newClient(t, pool)
			cancelled, failed := add(t, client, gworker.JobSpec{Task: "x"}), add(t, client, gworker.JobSpec{Task: "x"})
			if _, err := client.Cancel(t.Context(), cancelled.ID, "no 😀"); err != nil {
				t.Error(err)
			}
			if _, err := client.PermanentlyFailJobs(t.Context(), []int64{failed.ID}, "no 😀"); err != nil {
				t.Error(err)
			}
			for _, id := range []int64{cancelled.ID, failed.ID} {
				var text string
				scan(t, pool, `select coalesce(last_error, '') from graphile_worker._private_jobs where id = $1`, []any{id}, &text)
				if text != `no \ud83d\ude00` {
					t.Errorf("job %d: %q", id, text)
				}
			}
		})
	}
}
