// Package contain calls the user's code: handlers, hooks, observers, and the methods of
// their errors and panic values. It turns whatever goes wrong in them into values that are
// safe to use anywhere.
//
//	call.go     a call that neither a panic nor a Goexit escapes
//	panic.go    what a panic becomes
//	failure.go  an error of the user's, read once
//	tree.go     the errors that it wraps
//	clock.go    a clock of the user's
//	ours.go     marks gworker's own implementations of the user's interfaces
//
// What cannot be contained ends the process, as in any Go program: a stack overflow,
// concurrent writes to a map, running out of memory, os.Exit.
//
// The one thing not to break: a goroutine that serves more than one job calls user
// code only through this package.
package contain

import (
	"errors"
	"runtime/debug"
)

// ErrGoexit is the error of a call that ended its goroutine.
var ErrGoexit = errors.New("it ended its goroutine (runtime.Goexit) instead of returning")

// Call calls f and returns nil if f returned, a *PanicError if it panicked, and
// ErrGoexit if it ended its goroutine. f runs on a separate goroutine, for which Call waits,
// since nothing else keeps a Goexit from ending the caller's. That costs a microsecond or
// two.
func Call(f func()) error {
	switch end := call(f); end.how {
	case returned:
		return nil
	case panicked:
		return newPanicError(end.value, end.stack)
	default:
		return ErrGoexit
	}
}

// Cause is the value and the stack of the panic in an error that Call has returned. For a
// Goexit the value is ErrGoexit.
func Cause(err error) (value any, stack string) {
	if p, is := err.(*PanicError); is {
		return p.Value, p.Stack
	}
	return err, ""
}

// end is how a call ended.
type end struct {
	how   endKind
	value any    // what it panicked with
	stack string // where
}

type endKind uint8

const (
	exited endKind = iota
	returned
	panicked
)

// call is Call, but does not read the value of a panic.
func call(f func()) (e end) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if e.how == returned {
				return
			}
			if value := recover(); value != nil {
				e = end{how: panicked, value: value, stack: string(debug.Stack())}
			}
		}()
		e.makeRoom()
		f()
		e.how = returned
	}()
	<-done
	return e
}

// makeRoom has the goroutine's stack grow while there is little on it: most of what is
// called needs more than a new goroutine has, and to grow further down costs several
// microseconds, as all frames are copied.
//
//go:noinline
func (e *end) makeRoom() {
	var frame [6 << 10]byte
	frame[e.how] = 1
	e.how = endKind(frame[e.how+1]) // 0 again, which the compiler cannot know
}
