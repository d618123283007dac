package recovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/dbgen"
	"github.com/gworker/gworker/internal/retry"
)

// mostRefusals is how many refused rows one sweep or reset finds before it leaves the rest
// to the next one: if everything is refused, it must not go on for hours.
const mostRefusals = 100

var (
	// errKept is the refusal by a trigger that keeps the row without an error.
	errKept = errors.New("a trigger keeps the row as it is")
	// errPutOff is for rows that are left out after too many refusals.
	errPutOff = fmt.Errorf("left to the next time, after %d refusals", mostRefusals)
)

// refusal reports whether a constraint or a trigger may have refused the change of one row,
// while others can be changed.
func refusal(err error) bool { return errors.Is(err, errKept) || retry.Of(err) == retry.Answer }

// salvage calls do with all items at once. If the database refuses that, it calls do with
// each half, and so on, and reports the single items that are refused. The order is random
// then, so that the items that are left to the next time are not always the same ones.
func salvage[T any](items []T, do func([]T) error, refused func(T, error)) error {
	if len(items) == 0 {
		return nil
	}
	err := do(items)
	if err == nil || !refusal(err) {
		return err
	}
	if len(items) == 1 {
		refused(items[0], err)
		return nil
	}
	items = append([]T(nil), items...)
	rand.Shuffle(len(items), func(i, k int) { items[i], items[k] = items[k], items[i] })
	refusals := 0
	parts := [][]T{items[len(items)/2:], items[:len(items)/2]}
	for len(parts) > 0 {
		part := parts[len(parts)-1]
		parts = parts[:len(parts)-1]
		if refusals >= mostRefusals {
			for _, item := range part {
				refused(item, errPutOff)
			}
			continue
		}
		err := do(part)
		switch {
		case err == nil:
		case !refusal(err):
			return err
		case len(part) == 1:
			refusals++
			refused(part[0], err)
		default:
			parts = append(parts, part[len(part)/2:], part[:len(part)/2])
		}
	}
	return nil
}

// apart runs do under a savepoint, so that the transaction outlives a refusal.
func (s *sweep) apart(ctx context.Context, do func(*dbgen.Queries) error) error {
	bound, cancel := context.WithTimeout(ctx, s.statements.Timeout())
	defer cancel()
	savepoint, err := s.tx.Begin(bound)
	if err != nil {
		return fmt.Errorf("setting a savepoint: %w", err)
	}
	q := s.statements.On(savepoint)
	if err = do(q); err == nil && s.deferred {
		if err = q.CheckConstraintsNow(ctx); err == nil {
			err = q.CheckConstraintsLater(ctx)
		}
	}
	end, cancel := context.WithTimeout(ctx, s.statements.Timeout())
	defer cancel()
	switch {
	case err == nil:
		if err := savepoint.Commit(end); err != nil {
			return fmt.Errorf("releasing a savepoint: %w", err)
		}
	case refusal(err):
		if failed := savepoint.Rollback(end); failed != nil {
			return fmt.Errorf("rolling back to a savepoint: %w", failed)
		}
	}
	return err // anything but a refusal ends the whole transaction
}

// inASCII escapes the texts that the database's encoding cannot hold.
func inASCII(p dbgen.AdjustRecoveredJobsParams) dbgen.AdjustRecoveredJobsParams {
	for i, text := range p.Errors {
		p.Errors[i] = contain.ASCII(text)
	}
	return p
}
