package job

import "context"

type forcedKey struct{}

// WithForced has Forced return a channel under ctx.
func WithForced(ctx context.Context, forced <-chan struct{}) context.Context {
	return context.WithValue(ctx, forcedKey{}, forced)
}

// Forced returns the channel that closes when the worker waits no longer for the job
// that runs under ctx: what a handler has begun, it has to end at once. It is nil
// outside of a job.
func Forced(ctx context.Context) <-chan struct{} {
	forced, _ := ctx.Value(forcedKey{}).(<-chan struct{})
	return forced
}
