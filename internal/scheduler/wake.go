package scheduler

import (
	"github.com/gworker/gworker/internal/wait"
)

func wake(c chan<- struct{}) { wait.Wake(c) }
