package listener

import (
	"fmt"
	"time"
)

// StateKind is what a listener is doing.
type StateKind uint8

const (
	// Connecting: it opens a connection. Notifications are missed.
	Connecting StateKind = iota
	// Connected: it listens to all its channels.
	Connected
	// Lost: the connection, or the try to get one, is over.
	Lost
)

func (k StateKind) String() string {
	switch k {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Lost:
		return "lost"
	}
	return fmt.Sprintf("StateKind(%d)", uint8(k))
}

// State is a change in a listener's life. The end of Run's context is none.
type State struct {
	Kind StateKind
	// Err is why the connection was lost.
	Err error
	// RetryIn is the wait before the next try, after Lost.
	RetryIn time.Duration
}
