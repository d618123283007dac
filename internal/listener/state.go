package listener

import (
	"fmt"
	"time"
)

// StateKind is what a listener is doing.
type StateKind uint8

const (
	// Connecting: it is opening a connection. Notifications are missed.
	Connecting StateKind = iota
	// Connected: it is listening to all its channels.
	Connected
	// Lost: the connection was lost, or could not be opened.
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

// State is a change of what a listener is doing. The end of Run's context is not one.
type State struct {
	Kind StateKind
	// Err is why the connection was lost.
	Err error
	// RetryIn is the wait before the next try, after Lost.
	RetryIn time.Duration
}
