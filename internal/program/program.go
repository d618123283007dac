// Package program is what texts call the binary: hints say "run gworker migrate", in the
// library as in the binary itself.
package program

// Name is the name under which the binary is installed. The binary, which may have been
// started by another one, sets it before it does anything else; nothing else does.
var Name = "gworker"
