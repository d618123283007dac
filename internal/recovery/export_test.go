package recovery

import "context"

// ResetOldLocks is what a loop does every 8 to 10 minutes.
func ResetOldLocks(ctx context.Context, l *Loop) error { return l.resetOldLocks(ctx) }
