// Package advice is an error together with what its reader can do about it. The
// library's advice names fields of its configuration; the binary replaces it by its
// own, which names options.
package advice

// Error is an error with advice.
type Error struct {
	Err    error
	Advice string
}

func (e *Error) Error() string { return e.Err.Error() + " (" + e.Advice + ")" }

func (e *Error) Unwrap() error { return e.Err }
