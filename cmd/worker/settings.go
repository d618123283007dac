package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gworker/gworker"
)

// settings are the values of flags that do not come from the command line. A flag has the
// value of the first of these that gives one:
//
//  1. the command line;
//  2. its variable, GWORKER_ and its name in capitals with underscores. An empty variable
//     counts as none, as Compose files pass those that are not set;
//  3. for run, the file of --config;
//  4. the variables from before, such as DATABASE_URL, where it has one;
//  5. its default.
//
// All commands read the variables of the flags that all have; the rest are those of run.
// dev has a private database and reads none.
type settings struct {
	file    string // --config
	print   bool   // --print-config
	sources map[string]string
	given   map[string]bool // flags of the command line
	unknown []string        // variables that look like settings
}

const variablePrefix = "GWORKER_"

// earlierVariables are read for flags that are not given.
var earlierVariables = map[string]string{
	"database-url": "DATABASE_URL", "schema": "GRAPHILE_WORKER_SCHEMA", "listen-database-url": "LISTEN_DATABASE_URL",
}

// onlyFlags can be given on the command line alone, but for --config.
var onlyFlags = []string{"help", "version", "print-config", "config", "graphile-config", "watch", "schema-only", "cleanup"}

func (s *settings) register(run *cobra.Command) {
	flags := run.Flags()
	flags.StringVar(&s.file, "config", "", "YAML file of options, such as jobs: 4 (default $GWORKER_CONFIG)")
	flags.BoolVar(&s.print, "print-config", false, "print the options in use and where each comes from, and end")
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// read sets the flags of a command that have values elsewhere.
func (s *settings) read(cmd *cobra.Command) error {
	flags := s.flags(cmd)
	if len(flags) == 0 {
		return nil
	}
	s.sources, s.given = make(map[string]string), make(map[string]bool)
	cmd.Flags().Visit(func(flag *pflag.Flag) { s.given[flag.Name] = true })
	var file configFile
	if isRun(cmd) {
		s.unknown = unknownVariables(os.Environ(), flags)
		if !s.given["config"] {
			s.file = os.Getenv(variable("config"))
		}
		if s.file != "" {
			var err error
			if file, err = readConfigFile(s.file, flags); err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
		}
	}
	for _, name := range flags {
		if err := s.set(cmd.Flags(), name, file); err != nil {
			return usageError{command: cmd.CommandPath(), err: err}
		}
	}
	return nil
}

// flags are the names of the flags that may have values elsewhere.
func (s *settings) flags(cmd *cobra.Command) (names []string) {
	all := cmd.Root().PersistentFlags()
	switch {
	case isRun(cmd):
		all = cmd.Flags()
	case cmd.Root() == cmd, slices.Contains([]string{"dev", "version", "help", "completion"}, cmd.Name()), cmd.Parent().Name() == "completion":
		return nil
	}
	all.VisitAll(func(flag *pflag.Flag) {
		if !slices.Contains(onlyFlags, flag.Name) {
			names = append(names, flag.Name)
		}
	})
	return names
}

// isRun reports whether the command runs jobs: the root does if it has any flag.
func isRun(cmd *cobra.Command) bool {
	return cmd.Name() == "run" || cmd.Root() == cmd && cmd.Flags().NFlag() > 0
}

// set gives one flag its value, unless the command line did.
func (s *settings) set(flags *pflag.FlagSet, name string, file configFile) error {
	if s.given[name] {
		s.sources[name] = "the command line"
		return nil
	}
	if text := os.Getenv(variable(name)); text != "" {
		s.sources[name] = variable(name)
		if err := flags.Set(name, text); err != nil {
			return fmt.Errorf("%s: %w", variable(name), plainly(name, text, err))
		}
		return nil
	}
	option, ok := file.options[name]
	if !ok {
		return nil
	}
	s.sources[name] = fmt.Sprintf("%s line %d", file.path, option.line)
	several, isList := flags.Lookup(name).Value.(pflag.SliceValue)
	switch {
	case option.list && !isList:
		return fmt.Errorf("%s: %q takes one value, and not a list", s.sources[name], name)
	case option.list:
		err := several.Replace(option.values)
		flags.Lookup(name).Changed = true
		return err
	}
	if err := flags.Set(name, option.values[0]); err != nil {
		return fmt.Errorf("%s: %w", s.sources[name], plainly(name, option.values[0], err))
	}
	return nil
}

// plainly is the error of a flag's value without the flag's name in it.
func plainly(name, text string, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = invalid.Unwrap()
	}
	var number *strconv.NumError
	if errors.As(err, &number) {
		err = number.Err
	}
	return fmt.Errorf("%q cannot be the value of %s: %w", text, name, err)
}

// unknownVariables are variables that may have been meant as settings. Kubernetes makes
// variables GWORKER_SERVICE_* and GWORKER_PORT* for a service that is called gworker.
func unknownVariables(environment, flags []string) (unknown []string) {
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, variablePrefix), "_", "-"))
		switch {
		case !strings.HasPrefix(name, variablePrefix), slices.Contains(flags, flag), flag == "config":
		case strings.HasPrefix(name, variablePrefix+"SERVICE_"), strings.HasPrefix(name, variablePrefix+"PORT"):
		case strings.HasPrefix(name, variablePrefix+"TEST_"):
		default:
			unknown = append(unknown, name+didYouMean(flag, flags, variable))
		}
	}
	slices.Sort(unknown)
	return unknown
}

// explain names where the value of a refused setting comes from.
func (s *settings) explain(err error) error {
	var field *gworker.FieldError
	if !errors.As(err, &field) {
		return err
	}
	list, _, _ := strings.Cut(field.Field, "[")
	flag, ok := strings.CutPrefix(flagOf[list], "--")
	if !ok && list == "Config.DatabaseURL" {
		flag = "database-url"
	}
	source := cmp.Or(s.sources[flag], s.earlier(flag))
	if source == "" || s.given[flag] {
		return err
	}
	return &settingError{name: "--" + flag, source: source, err: err}
}

// earlier is the earlier variable that gives a flag its value, if one does.
func (s *settings) earlier(flag string) string {
	if name := earlierVariables[flag]; name != "" && os.Getenv(name) != "" {
		return name
	}
	return ""
}

// settingError is a refused value that does not come from the command line.
type settingError struct {
	name, source string
	err          error
}

func (e *settingError) Error() string {
	return fmt.Sprintf("%s (from %s): %v", e.name, e.source, e.err)
}

func (e *settingError) Unwrap() error { return e.err }
