package recovery

import "context"

// ResetOldLocks is what a loop does every 8 to 10 minutes.
func ResetOldLocks(ctx context.Context, l *Loop) error { return l.resetOldLocks(ctx) }

// Holding says that the loop would not sweep now.
func Holding(l *Loop) bool { return l.holding() }

// Beat is one heartbeat.
func Beat(ctx context.Context, k *Keeper) error { return k.beat(ctx) }
