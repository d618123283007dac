package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/gworker/gworker/internal/terminal"
)

// printTo writes the options in use as a file for --config, each with its source.
// Options at their defaults are comments: some exclude others where they are given.
// Passwords are hidden.
func (s *settings) printTo(out io.Writer, cmd *cobra.Command) error {
	type row struct{ text, source string }
	var rows []row
	width := 0
	for _, name := range s.flags(cmd) {
		value, source := valueText(cmd.Flags().Lookup(name).Value), s.sources[name]
		if earlier := s.earlier(name); source == "" && earlier != "" {
			value, source = yamlText(os.Getenv(earlier)), earlier
		}
		r := row{text: name + ": " + value, source: cmp.Or(source, "default")}
		if source == "" {
			r.text = "# " + r.text
		}
		rows = append(rows, r)
		width = max(width, min(len(r.text), 60))
	}
	for _, r := range rows {
		if _, err := terminal.Fprintf(out, "%s  # %s\n", fmt.Sprintf("%-*s", width, r.text), r.source); err != nil {
			return err
		}
	}
	for _, name := range s.unknown {
		if _, err := terminal.Fprintf(out, "# not used: %s\n", name); err != nil {
			return err
		}
	}
	return nil
}

// warn logs variables that look like settings and are unknown.
func (s *settings) warn(logger *zap.Logger) {
	for _, name := range s.unknown {
		logger.Warn("a variable that begins with GWORKER_ is not used", zap.String("variable", name))
	}
}

// valueText is a flag's value as YAML.
func valueText(value pflag.Value) string {
	several, ok := value.(pflag.SliceValue)
	if !ok {
		return yamlText(value.String())
	}
	var texts []string
	for _, text := range several.GetSlice() {
		texts = append(texts, yamlText(text))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// plainText needs no quotes in YAML.
var plainText = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

// yamlText is a text as YAML, without passwords: found before it is quoted.
func yamlText(text string) string {
	text = hideSecrets(text)
	if plainText.MatchString(text) {
		return text
	}
	return strconv.Quote(text) // whose escapes are YAML's, too
}
