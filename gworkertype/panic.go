package gworkertype

import "fmt"

// PanicError is what a panic of the program's own code becomes: of a handler's, the failure
// of its job. Its text is short, "panic: " and the value's text; the job's last_error holds
// the stack as well.
type PanicError struct {
	// Value is what the code panicked with.
	Value any
	// Stack is where it did, as debug.Stack gives it.
	Stack string
	// Text is the text of Value, read when the panic was caught. "" means that the error
	// was made by hand.
	Text string
	// Opaque says that Value is an error that must not be looked through, because its
	// methods panic as well: Unwrap returns nil then.
	Opaque bool
}

// Error returns "panic: " and the text of the value.
func (e *PanicError) Error() string {
	if e.Text != "" {
		return "panic: " + e.Text
	}
	switch e.Value.(type) {
	case string, error, fmt.Stringer, bool, int, int32, int64, uint8, float64:
		return fmt.Sprintf("panic: %v", e.Value)
	}
	return fmt.Sprintf("panic: a value of type %T", e.Value) // it may hold itself, which fmt does not survive
}

// Unwrap returns the value if the code panicked with an error, unless that is Opaque.
func (e *PanicError) Unwrap() error {
	if e.Opaque {
		return nil
	}
	err, _ := e.Value.(error)
	return err
}
