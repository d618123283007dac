package gworker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gworker/gworker/internal/contain"
)

// ErrAddSkipped says that an interceptor has skipped a job (see ClientConfig.BeforeAdd).
// AddJob returns it without a job, AddJobs together with the jobs that were added.
//
// Interceptors return it, or an error that wraps it, to skip a job.
var ErrAddSkipped = errors.New("the job was not added: a BeforeAdd interceptor skipped it")

// checkInterceptors refuses nil among the interceptors.
func checkInterceptors(field string, before []func(context.Context, *JobSpec) error) error {
	if i := slices.IndexFunc(before, func(f func(context.Context, *JobSpec) error) bool { return f == nil }); i >= 0 {
		return problem(fmt.Sprintf("%s[%d]", field, i), "is nil")
	}
	return nil
}

// beforeAdd asks the interceptors about a job, unless its definition is unusable, and
// returns the spec as they leave it. The error wraps ErrAddSkipped if the job is skipped.
// Everything that adds jobs for this client calls it first.
func (c *operations) beforeAdd(ctx context.Context, spec JobSpec) (JobSpec, error) {
	if spec.refused != nil {
		return JobSpec{}, spec.refused
	}
	if len(c.before) == 0 {
		return spec, nil
	}
	spec.Flags = slices.Clone(spec.Flags) // the caller's slice stays the caller's
	for i, intercept := range c.before {
		if err := protect(ctx, intercept, &spec); err != nil {
			return JobSpec{}, fmt.Errorf("BeforeAdd[%d]: %w", i, err)
		}
	}
	return spec, nil
}

// beforeAddAll is beforeAdd for the specs of one call. It returns the specs to add, with
// their places among specs. An error for one of them fails all.
func (c *operations) beforeAddAll(ctx context.Context, specs []JobSpec) (kept []JobSpec, places []int, err error) {
	for i, spec := range specs {
		if spec.refused != nil {
			return nil, nil, fmt.Errorf("specs[%d]%s: %w", i, ofTask(spec.Task), spec.refused)
		}
	}
	for i, spec := range specs {
		spec, err := c.beforeAdd(ctx, spec)
		switch {
		case contain.Is(err, ErrAddSkipped):
			continue
		case err != nil:
			return nil, nil, fmt.Errorf("specs[%d]%s: %w", i, ofTask(specs[i].Task), err)
		}
		kept, places = append(kept, spec), append(places, i)
	}
	return kept, places, nil
}

// protect turns an interceptor's panic into an error. It runs on the caller's goroutine, so
// a runtime.Goexit still ends that.
func protect(ctx context.Context, intercept func(context.Context, *JobSpec) error, spec *JobSpec) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = contain.Recovered(value)
		}
	}()
	return contain.Read(intercept(ctx, spec))
}
