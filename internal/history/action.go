package history

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"sync"

	"github.com/gworker/gworker/internal/dbgen"
)

// Actions records what administrators do, in the transactions that do it.
type Actions struct {
	// Schema is the name of the queue's schema.
	Schema string
	// By is who acts, as the program says; "" if it does not.
	By string
	// Transaction runs statements in a transaction of their own. nil means that they are in
	// one already.
	Transaction func(ctx context.Context, do func(*dbgen.Queries) error) error
}

// Inside is the same for actions in a transaction of the caller's.
func (a Actions) Inside() Actions {
	a.Transaction = nil
	return a
}

// An Action is what is done.
type Action struct {
	Kind string
	// Reason is why, or "".
	Reason string
	// What are further members of the event's details.
	What any
}

// mostJobs is how many ids of an action are recorded.
const mostJobs = 1000

// details are those of an action's event. The database adds its own user.
type details struct {
	By      string `json:"by,omitempty"`
	OSUser  string `json:"os_user,omitempty"`
	Host    string `json:"host,omitempty"`
	Program string `json:"program,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Count   int    `json:"count,omitempty"` // of the jobs
	What    any    `json:"what,omitempty"`
}

// Record has change do it, and records that in the same transaction. change returns the jobs
// that it has changed; without any, nothing is recorded. queries are for an action that is in
// a transaction already.
//
// What cannot be recorded is done anyway: the function that records has an answer
// whatever is wrong with its tables, and is called only where it is there.
func (a *Actions) Record(ctx context.Context, queries *dbgen.Queries, action Action, change func(*dbgen.Queries) ([]int64, error)) error {
	do := func(q *dbgen.Queries) error {
		ids, err := change(q)
		if err != nil || len(ids) == 0 {
			return err
		}
		return a.write(ctx, q, action, ids)
	}
	if a.Transaction == nil {
		return do(queries)
	}
	return a.Transaction(ctx, do)
}

// Note records what was done in transactions of its own, and is not about single jobs.
func (a *Actions) Note(ctx context.Context, queries *dbgen.Queries, action Action) error {
	return a.write(ctx, queries, action, []int64{})
}

func (a *Actions) write(ctx context.Context, q *dbgen.Queries, action Action, ids []int64) error {
	reach, err := q.HistoryReach(ctx, a.Schema)
	if err != nil || reach.Version == 0 || !reach.Records {
		return err
	}
	who := process()
	text, err := json.Marshal(details{
		By: a.By, OSUser: who.user, Host: who.host, Program: who.program, Reason: action.Reason, Count: len(ids), What: action.What,
	})
	if err != nil {
		return fmt.Errorf("describing what was done: %w", err)
	}
	_, err = q.RecordAction(ctx, dbgen.RecordActionParams{Kind: action.Kind, Jobs: ids[:min(len(ids), mostJobs)], Details: string(text)})
	return err
}

// identity is who runs this program.
type identity struct{ user, host, program string }

var process = sync.OnceValue(func() (i identity) {
	if u, err := user.Current(); err == nil {
		i.user = u.Username
	}
	i.host, _ = os.Hostname() // "" if it is not known
	i.program = filepath.Base(os.Args[0])
	return i
})
