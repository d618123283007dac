package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// configFile is the file of --config: options of "worker run" by their names, without
// dashes. A value is written as on the command line; options that can be repeated also take
// a list.
type configFile struct {
	path    string
	options map[string]fileOption
}

type fileOption struct {
	line   int
	values []string
	list   bool
}

// readConfigFile reads a file of options, whose names must be among those given.
func readConfigFile(path string, names []string) (configFile, error) {
	file := configFile{path: path, options: make(map[string]fileOption)}
	switch filepath.Ext(path) {
	case ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts":
		return file, fmt.Errorf("--config %s: a graphile.config is JavaScript, which runs in Node's worker alone; "+
			"write its settings as options to a YAML file (docs/command-line.md has a table)", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return file, fmt.Errorf("reading the file of --config: %w", err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return file, nil
	}
	var document yaml.Node
	if err := yaml.Load(text, &document); err != nil {
		return file, fmt.Errorf("%s is not the YAML that it should be: %s", path, oneLine(err.Error()))
	}
	top := &document
	if document.Kind == yaml.DocumentNode && len(document.Content) == 1 {
		top = document.Content[0]
	}
	switch {
	case top.Kind == yaml.ScalarNode && top.Tag == "!!null": // only comments
		return file, nil
	case top.Kind != yaml.MappingNode:
		return file, fmt.Errorf(`%s has no options: they are lines such as "jobs: 4"`, path)
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		if err := file.add(top.Content[i], top.Content[i+1], names); err != nil {
			return file, fmt.Errorf("%s line %d: %w", path, top.Content[i].Line, err)
		}
	}
	return file, nil
}

func (f configFile) add(key, value *yaml.Node, names []string) error {
	name := key.Value
	if key.Kind != yaml.ScalarNode || !slices.Contains(names, name) {
		return fmt.Errorf("%q is no option of run%s", name, didYouMean(name, names, quoted))
	}
	if _, twice := f.options[name]; twice {
		return fmt.Errorf("%q is given twice", name)
	}
	values, list, err := texts(value)
	if err != nil {
		return fmt.Errorf("%q %w", name, err)
	}
	f.options[name] = fileOption{line: key.Line, values: values, list: list}
	return nil
}

// texts are the values of a list, or the one value.
func texts(value *yaml.Node) (values []string, list bool, err error) {
	for value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	if value.Kind == yaml.ScalarNode {
		if value.Tag == "!!null" || value.Value == "" {
			return nil, false, errors.New("has no value: give one, or leave the line out")
		}
		return []string{value.Value}, false, nil
	}
	if value.Kind != yaml.SequenceNode {
		return nil, false, errors.New("takes a value, or a list of values")
	}
	for _, item := range value.Content {
		text, nested, err := texts(item)
		if err != nil || nested {
			return nil, true, errors.New("is a list whose entries are not all texts")
		}
		values = append(values, text...)
	}
	return values, true, nil
}

// didYouMean suggests the name with the most similar spelling, if there is one.
func didYouMean(name string, names []string, write func(name string) string) string {
	plain := strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(strings.TrimLeft(name, "-")))
	best, least := "", 3
	for _, candidate := range names {
		if d := distance(plain, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + write(best) + "?)"
}

func quoted(name string) string { return strconv.Quote(name) }

// distance is the Levenshtein distance of two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
