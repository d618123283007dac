package scheduler

import (
	"time"

	"github.com/gworker/gworker/internal/wait"
)

func wake(c chan<- struct{}) { wait.Wake(c) }

// stoppedTimer is a timer that is still to be set.
func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
