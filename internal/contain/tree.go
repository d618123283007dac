package contain

import "reflect"

// mostWrapped bounds how many wrapped errors are read: an error that wraps itself has no
// end.
const mostWrapped = 10_000

// flatten lists the error and what it wraps, in the order of errors.Is. It calls
// the errors' Unwrap methods; what it has found stays if one of them panics. A
// panic is a failure whatever its value is, so the value is not read.
func (f *Failure) flatten() {
	f.tree = f.tree[:0]
	whole := true
	for pending := []error{f.err}; len(pending) > 0; {
		err := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if err == nil {
			continue
		}
		if len(f.tree) >= mostWrapped {
			return
		}
		if read, is := err.(*Failure); is && read != nil {
			f.tree = append(f.tree, read.tree...)
			whole = whole && read.whole
			continue
		}
		f.tree = append(f.tree, err)
		switch e := err.(type) {
		case *PanicError:
		case interface{ Unwrap() error }:
			pending = append(pending, e.Unwrap())
		case interface{ Unwrap() []error }:
			wrapped := e.Unwrap()
			for i := len(wrapped) - 1; i >= 0 && len(pending) < mostWrapped; i-- {
				pending = append(pending, wrapped[i])
			}
		}
	}
	f.whole = whole
}

// As finds the first error of type T in err, as errors.As does. A nil pointer is
// none. If a method that it calls fails, nothing is found, and what Read has made
// of err says so.
func As[T error](err error) (found T, ok bool) {
	f, isFailure := Read(err).(*Failure)
	if !isFailure {
		return found, false
	}
	for _, e := range f.tree {
		if t, is := e.(T); is && !isNilPointer(e) {
			return t, true
		}
		as, has := e.(interface{ As(any) bool })
		if !has {
			continue
		}
		if end := call(func() { ok = as.As(&found) && !isNilPointer(found) }); end.how != returned {
			f.note("As", end)
			break
		}
		if ok {
			return found, true
		}
	}
	var none T
	return none, false
}

// Is reports whether err is, or wraps, one of gworker's own errors, as errors.Is
// does. If a method that it calls fails, it is not.
func Is(err, target error) (is bool) {
	f, isFailure := Read(err).(*Failure)
	if !isFailure {
		return false
	}
	for _, e := range f.tree {
		if reflect.TypeOf(e) == reflect.TypeOf(target) && reflect.TypeOf(e).Comparable() && e == target {
			return true
		}
		asks, has := e.(interface{ Is(error) bool })
		if !has {
			continue
		}
		if end := call(func() { is = asks.Is(target) }); end.how != returned {
			f.note("Is", end)
			return false
		}
		if is {
			return true
		}
	}
	return false
}

func isNilPointer(err error) bool {
	v := reflect.ValueOf(err)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// stackIn is the stack of the first panic in a tree.
func stackIn(tree []error) string {
	for _, err := range tree {
		if p, is := err.(*PanicError); is && p != nil && p.Stack != "" {
			return p.Stack
		}
	}
	return ""
}
