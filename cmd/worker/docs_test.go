package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The documentation has every command and option, hidden ones too.
func TestCommandLineIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/command-line.md")
	if err != nil {
		t.Fatal(err)
	}
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		if !strings.Contains(string(text), cmd.CommandPath()) {
			t.Errorf("%s is not in docs/command-line.md", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(string(text), "--"+f.Name) {
				t.Errorf("%s --%s is not in docs/command-line.md", cmd.CommandPath(), f.Name)
			}
			if f.Shorthand != "" && !strings.Contains(string(text), "`-"+f.Shorthand+"`") {
				t.Errorf("%s -%s is not in docs/command-line.md", cmd.CommandPath(), f.Shorthand)
			}
		})
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRoot(stdio{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}}))
}
