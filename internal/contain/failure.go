package contain

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxText bounds the text of an error, in bytes; longer ones are cut.
const MaxText = 64 << 10

// NoText is the text of a failure whose error has none.
const NoText = "the handler returned an error without a text"

// Failure is an error of the user's code, read once: its text and what it wraps.
// Its own methods call none of the error's. errors.Is and errors.As find in it
// what they find in the error.
type Failure struct {
	err   error
	text  string
	stack string  // of the panic that is the failure, or made it unreadable
	tree  []error // err and what it wraps, as far as that could be read
	whole bool    // that is all of it
}

// Read reads an error of the user's: whatever its methods do, the result is safe
// to use. What is safe already is returned as it is, nil included.
func Read(err error) error {
	switch safe := err.(type) {
	case nil:
		return nil
	case *Failure:
		return safe
	case *PanicError:
		if isRead(safe) {
			return safe
		}
	}
	f := &Failure{err: err}
	f.read()
	return f
}

func (f *Failure) read() {
	hasText := false
	e := call(func() {
		f.text = f.err.Error()
		hasText = true
		f.flatten()
	})
	if !hasText {
		f.text = "the error's Error method " + f.blame(e) + " (the error is " + kindOf(f.err) + ")"
		call(f.flatten) // what it wraps may still say what is to become of the job
		return
	}
	if isBlank(f.text) {
		f.text = NoText
	}
	f.text = Bounded(f.text)
	if e.how != returned {
		f.note("Unwrap", e)
	}
	if f.stack == "" {
		f.stack = stackIn(f.tree)
	}
}

// note adds to the text that a method has failed. Then Unwrap hides the error.
func (f *Failure) note(method string, e end) {
	f.whole = false
	f.text += "; the error's " + method + " method " + f.blame(e)
}

// blame says what a method did instead of returning.
func (f *Failure) blame(e end) string {
	if e.how == exited {
		return "ended its goroutine (runtime.Goexit) instead of returning"
	}
	if f.stack == "" {
		f.stack = e.stack
	}
	return "panicked: " + TextOf(e.value)
}

// kindOf names the type of an error without calling its methods.
func kindOf(err error) string {
	if isNilPointer(err) {
		return fmt.Sprintf("a nil %T", err)
	}
	return fmt.Sprintf("of type %T", err)
}

func (f *Failure) Error() string { return f.text }

// Unwrap returns the error itself, or nil if it cannot be looked through: one of
// its methods has failed, or it wraps itself.
func (f *Failure) Unwrap() error {
	if !f.whole {
		return nil
	}
	return f.err
}

// Original is the user's error that Read has read, for their own code. It is err itself if
// the methods of that error are not safe to call.
func Original(err error) error {
	if f, is := err.(*Failure); is && f.whole {
		return f.err
	}
	return err
}

// Tried is Read for an error that gworker's code then inspects with errors.Is and errors.As:
// it hides errors that cannot be inspected safely.
func Tried(err error, look func(error)) error {
	err = Read(err)
	e := call(func() { look(err) })
	if e.how == returned {
		return err
	}
	switch read := err.(type) {
	case *Failure:
		read.note("Is or As", e)
	case *PanicError:
		read.Opaque = true
	}
	return err
}

// Text is the text of an error of the user's; it is never empty.
func Text(err error) string {
	if err == nil {
		return NoText
	}
	return Read(err).Error()
}

// Stack is the stack of the panic that caused err, which has been read; "" without one.
func Stack(err error) string {
	switch e := err.(type) {
	case *Failure:
		return e.stack
	case *PanicError:
		return e.Stack
	}
	return ""
}

// LongText is what is stored of a user's error: its text and, if a panic caused it, the
// stack. If they are too long together, both are cut.
func LongText(err error) string {
	err = Read(err)
	text, stack := Text(err), Stack(err)
	if stack == "" {
		return cutTo(text, MaxText)
	}
	const between = "\n\n"
	stack = cutTo(Bounded(stack), max(MaxText/2, MaxText-len(between)-len(text)))
	return cutTo(text, MaxText-len(between)-len(stack)) + between + stack
}

// Bounded is a text as it can be stored and shown: valid UTF-8 without NUL, of
// MaxText at most.
func Bounded(text string) string {
	const looked = MaxText + utf8.UTFMax
	huge := len(text) > looked
	if huge {
		text = strings.Clone(text[:looked]) // not to keep all of it
	}
	text = cutTo(strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD"), MaxText)
	if huge && !strings.HasSuffix(text, cutMark) {
		text = head(text, MaxText-len(cutMark)) + cutMark
	}
	return text
}

const cutMark = " [cut]"

// cutTo cuts a text to a size in bytes, between two characters, and says so.
func cutTo(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return head(text, size-len(cutMark)) + cutMark
}

// head is as many of the first characters of a text as fit.
func head(text string, size int) string {
	if len(text) <= size {
		return text
	}
	for size > 0 && !utf8.RuneStart(text[size]) {
		size--
	}
	return text[:size]
}
