// Package advice is an error together with what its reader can do. The library's
// advice speaks of fields of its configuration, and the binary puts its own, which
// speaks of options, in the place of it.
package advice

// Error is an error with advice.
type Error struct {
	Err    error
	Advice string
}

func (e *Error) Error() string { return e.Err.Error() + " (" + e.Advice + ")" }

func (e *Error) Unwrap() error { return e.Err }
