package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/contain"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/retry"
)

// Flags say which jobs a worker leaves alone.
type Flags struct {
	// Forbidden: a job with one of them is left alone.
	Forbidden []string
	// Ask, if not nil, is asked for further forbidden flags before every claim.
	// Without its answer nothing is claimed.
	Ask func(context.Context) ([]string, error)
	// Accepted: if there are any, a job needs at least one of them.
	Accepted []string
}

// any reports whether flags matter at all.
func (f Flags) any() bool { return len(f.Forbidden)+len(f.Accepted) > 0 || f.Ask != nil }

// forbidden is what is forbidden now: all of Forbidden, and what Ask says.
func (f Flags) forbidden(ctx context.Context, timeout time.Duration) ([]string, error) {
	if f.Ask == nil {
		return f.Forbidden, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	more, err := f.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which flags are forbidden now: %w", err)
	}
	for _, flag := range more {
		if !utf8.ValidString(flag) || strings.ContainsRune(flag, 0) {
			return nil, fmt.Errorf("asking which flags are forbidden now: %q is no flag: it must be UTF-8 without NUL", flag)
		}
	}
	if len(f.Forbidden) == 0 {
		return more, nil
	}
	return append(slices.Clone(f.Forbidden), more...), nil
}

// ask calls the user's function, whose panic is an error like any other.
func (f Flags) ask(ctx context.Context) (flags []string, err error) {
	if trouble := contain.Call(func() { flags, err = f.Ask(ctx) }); trouble != nil {
		err = trouble
	}
	// The loop asks what kind of an error it is, and must not call a method that
	// fails.
	return flags, contain.Tried(err, func(err error) { retry.Of(err) })
}

// forbids returns the flag for which a job must not run, if there is one.
func forbids(forbidden []string, j *job.Claimed) (flag string, ok bool) {
	if len(forbidden) == 0 {
		return "", false
	}
	for _, flag := range j.Flags {
		if slices.Contains(forbidden, flag) {
			return flag, true
		}
	}
	return "", false
}
