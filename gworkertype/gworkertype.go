// Package gworkertype has the error types that come from deep inside gworker, for
// errors.As. Package gworker has most of them by the same names, so that a program rarely
// needs to import this one.
//
//	panic.go      what a panic of the program's own code becomes
//	schema.go     why a schema cannot be worked on
//	statement.go  a statement that did not end in time
//
// The package is a leaf: it imports nothing of this module, so that every other package
// can make these errors. The one thing not to break is that.
package gworkertype
