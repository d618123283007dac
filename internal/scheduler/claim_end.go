package scheduler

import (
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler/completer"
)

// A claimEnd is the statements that end a claim, in their order, and what they have written.
type claimEnd struct {
	cc    *claimConn
	steps []endStep
	claimEndWritten
	// kept is how many rows are as they were, although a statement should have written them.
	kept int
	// events are recorded with the end, or not: because of the problem.
	events  *dbgen.RecordRunsParams
	problem string
}

// endStep is one statement.
type endStep struct {
	name string
	sql  string
	args []any
	read func(pgx.BatchResults) error // nil: its answer says nothing
}

// claimEndWritten is what the end of a claim has written, if it was committed.
type claimEndWritten struct {
	failed map[int64]completer.Written
	// unchanged are ended runs whose rows may be as they were, although no statement
	// has failed.
	unchanged []completer.Result
	// locked are ended runs whose rows certainly are as they were, and whose locks are
	// written now.
	locked map[int64]bool
	// unspilled are jobs that run, and whose locks are not written.
	unspilled []*job.Claimed
	// awaited are those of the jobs asked about whose rows another session waited for.
	awaited map[int64]bool
}

// queueEnd asks for everything that the end of a claim writes, and the commit.
// announce tells others of jobs that are free again, where this worker will not
// claim them at once.
func (cc *claimConn) queueEnd(batch *pgx.Batch, e ending, announce bool) *claimEnd {
	h := cc.h
	w := &claimEnd{cc: cc, claimEndWritten: claimEndWritten{failed: map[int64]completer.Written{}}}
	guarded := h.guarded.Load()
	byKind := completer.OfEachKind(e.finish)
	returned := slices.Concat(byKind[job.Returned], byKind[job.Snoozed])
	if len(e.ask) > 0 {
		w.ask(e.ask)
	}
	if guarded {
		w.add("savepoint", savepointHeld, nil)
	}
	w.complete(byKind[job.Completed])
	w.fail(byKind[job.Failed])
	w.putBack(returned)
	if guarded {
		w.lockUnchanged(e)
	}
	w.spill(e)
	if free := e.dropped + freeAtOnce(returned); announce && free > 0 {
		w.add("AnnounceHeldJobs", h.text(dbgen.AnnounceHeldJobs), nil, int32(free))
	}
	if guarded {
		w.add("check of deferred constraints", checkNow, nil)
	}
	w.record(e.finish)
	for _, s := range w.steps {
		batch.Queue(s.sql, s.args...)
	}
	batch.Queue(commitHeld)
	return w
}

func (w *claimEnd) add(name, sql string, read func(pgx.BatchResults) error, args ...any) {
	w.steps = append(w.steps, endStep{name: name, sql: sql, args: args, read: read})
}

// read reads the answers.
func (w *claimEnd) read(results pgx.BatchResults) (claimEndWritten, error) {
	for _, s := range w.steps {
		read := s.read
		if read == nil {
			read = func(results pgx.BatchResults) error { _, err := results.Exec(); return err }
		}
		if err := read(results); err != nil {
			return w.claimEndWritten, fmt.Errorf("statement %s: %w", s.name, err)
		}
	}
	tag, err := results.Exec()
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered %q", tag)
	}
	if err != nil {
		return w.claimEndWritten, fmt.Errorf("committing: %w", err)
	}
	if w.events != nil {
		w.cc.h.out.Recorded(w.events, w.problem, nil)
	}
	return w.claimEndWritten, nil
}

func (w *claimEnd) ask(ids []int64) {
	w.add("AwaitedJobs", w.cc.h.text(dbgen.AwaitedJobs), func(results pgx.BatchResults) (err error) {
		w.awaited, err = readIDs(results)
		return err
	}, ids)
}

func (w *claimEnd) complete(runs []completer.Result) {
	if len(runs) == 0 {
		return
	}
	h := w.cc.h
	w.add("CompleteHeldJobs", h.text(dbgen.CompleteHeldJobs), func(results pgx.BatchResults) error {
		tag, err := results.Exec()
		if err != nil {
			return err
		}
		if deleted := int(tag.RowsAffected()); deleted != len(runs) {
			h.events.Emit(event.HeldJobsKept{WorkerID: h.workerID, Completed: len(runs), Deleted: deleted})
			w.unchanged, w.kept = append(w.unchanged, runs...), w.kept+len(runs)-deleted
		}
		return nil
	}, completer.IDs(runs))
}

func (w *claimEnd) fail(runs []completer.Result) {
	if len(runs) == 0 {
		return
	}
	h, c := w.cc.h, completer.FailColumns(runs)
	w.add("FailHeldJobs", h.text(dbgen.FailHeldJobs), func(results pgx.BatchResults) error {
		if err := readFailed(results, w.failed); err != nil {
			return err
		}
		w.keep(runs, func(id int64) bool { _, ok := w.failed[id]; return ok })
		return nil
	}, completer.TimeOf(h.claims.clock.now), c.IDs, c.Attempts, c.Errors, c.Delays, c.Finals, c.Capped, c.Payloads)
}

// putBack writes what has to wait, or has another payload. The others are as they are to be.
func (w *claimEnd) putBack(runs []completer.Result) {
	runs = slices.DeleteFunc(slices.Clone(runs), func(e completer.Result) bool {
		return completer.Delay(e.Outcome, 0) <= 0 && e.Outcome.Payload == nil
	})
	if len(runs) == 0 {
		return
	}
	h, c := w.cc.h, completer.ReturnColumns(runs)
	w.add("PutBackHeldJobs", h.text(dbgen.PutBackHeldJobs), func(results pgx.BatchResults) error {
		back, err := readBack(results)
		if err == nil {
			w.keep(runs, func(id int64) bool { return back[id] })
		}
		return err
	}, completer.TimeOf(h.claims.clock.now), c.IDs, c.Delays, c.Payloads)
}

// keep notes the runs whose rows are as they were.
func (w *claimEnd) keep(runs []completer.Result, written func(id int64) bool) {
	for _, e := range runs {
		if !written(e.Job.ID) {
			w.unchanged, w.kept = append(w.unchanged, e), w.kept+1
		}
	}
}

// lockUnchanged writes the locks of those whose rows are as they were.
func (w *claimEnd) lockUnchanged(e ending) {
	h, p := w.cc.h, unchangedArgs(e.finish)
	if len(p.Ids) == 0 {
		return
	}
	w.add("LockUnchangedJobs", h.text(dbgen.LockUnchangedJobs), func(results pgx.BatchResults) (err error) {
		if w.locked, err = readIDs(results); err != nil {
			return err
		}
		w.unchanged = slices.DeleteFunc(w.unchanged, func(end completer.Result) bool { return w.locked[end.Job.ID] })
		if len(w.locked) == w.kept {
			w.unchanged = nil // they are all found
		}
		return nil
	}, p.Ids, p.Attempts, p.RunAts, h.workerID, e.lockAt)
}

// spill writes the locks of what goes on.
func (w *claimEnd) spill(e ending) {
	if len(e.spill) == 0 {
		return
	}
	h, ids := w.cc.h, make([]int64, len(e.spill))
	for i, a := range e.spill {
		ids[i] = a.job.ID
	}
	w.add("SpillJobs", h.text(dbgen.SpillJobs), func(results pgx.BatchResults) error {
		spilled, err := readIDs(results)
		if err != nil {
			return err
		}
		for _, a := range e.spill {
			if !spilled[a.job.ID] {
				w.unspilled = append(w.unspilled, a.job)
			}
		}
		return nil
	}, h.workerID, e.lockAt, ids)
}

// freeAtOnce counts the runs whose jobs can be claimed again when the claim has ended.
func freeAtOnce(returned []completer.Result) (count int) {
	for _, e := range returned {
		if completer.Delay(e.Outcome, 0) <= 0 {
			count++
		}
	}
	return count
}

// unchangedArgs are the jobs that are deleted, fail, or wait, as arguments of
// LockUnchangedJobs. Whether another payload was stored does not show.
func unchangedArgs(runs []completer.Result) (p dbgen.LockUnchangedJobsParams) {
	for _, e := range runs {
		switch kind := e.Outcome.Kind; {
		case kind == job.Completed, kind == job.Failed, (kind == job.Returned || kind == job.Snoozed) && completer.Delay(e.Outcome, 0) > 0:
			p.Ids = append(p.Ids, e.Job.ID)
			p.Attempts = append(p.Attempts, int32(e.Job.Lock.Attempt))
			p.RunAts = append(p.RunAts, e.Job.RunAt)
		}
	}
	return p
}

func readIDs(results pgx.BatchResults) (map[int64]bool, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := map[int64]bool{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids[id] = true
	}
	return ids, rows.Err()
}

func readFailed(results pgx.BatchResults, failed map[int64]completer.Written) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r dbgen.FailHeldJobsRow
		if err := rows.Scan(&r.ID, &r.RunAt, &r.Permanent, &r.Written); err != nil {
			return err
		}
		if r.Written {
			failed[r.ID] = completer.Written{Permanent: r.Permanent, RunAt: r.RunAt.Time}
		}
	}
	return rows.Err()
}

// readBack tells which jobs were put back.
func readBack(results pgx.BatchResults) (map[int64]bool, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	back := map[int64]bool{}
	for rows.Next() {
		var r dbgen.PutBackHeldJobsRow
		if err := rows.Scan(&r.ID, &r.Written); err != nil {
			return nil, err
		}
		if r.Written {
			back[r.ID] = true
		}
	}
	return back, rows.Err()
}
