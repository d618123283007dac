package main

import (
	"strings"

	"github.com/spf13/pflag"
)

// list is a flag with several values: it can be repeated, and commas separate values. A
// value with a comma is written in double quotes.
type list []string

// listVar defines such a flag.
func listVar(flags *pflag.FlagSet, to *[]string, name, usage string) {
	flags.Var((*list)(to), name, usage+" (may be repeated, or separated by commas)")
}

func (l *list) Set(text string) error {
	for more := true; more; {
		var item string
		item, text, more = firstOf(text)
		*l = append(*l, item)
	}
	return nil
}

// firstOf cuts a list after its first text. Quotes that do not surround the whole of
// it are part of it.
func firstOf(list string) (item, rest string, more bool) {
	if quoted, ok := strings.CutPrefix(list, `"`); ok {
		for end := 0; end < len(quoted); end++ {
			switch {
			case quoted[end] != '"':
			case strings.HasPrefix(quoted[end:], `""`):
				end++
			case end+1 == len(quoted) || quoted[end+1] == ',':
				item = strings.ReplaceAll(quoted[:end], `""`, `"`)
				rest, more = strings.CutPrefix(quoted[end+1:], ",")
				return item, rest, more
			}
		}
	}
	return strings.Cut(list, ",")
}

func (l *list) String() string { return strings.Join(*l, ",") }

func (*list) Type() string { return "texts" }
