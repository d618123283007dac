// Package gworkertype has the types that come from deep inside gworker: errors, for
// errors.As, and what an add says of a duplicate. Package gworker has most of them by the
// same names, so that a program rarely needs to import this one.
//
//	duplicate.go  of which job an add is a duplicate
//	panic.go      what a panic of the program's own code becomes
//	schema.go     why a schema cannot be worked on
//	statement.go  a statement that did not end in time
//
// The package is a leaf: it imports nothing of this module, so that every other package
// can make them. The one thing not to break is that.
package gworkertype
