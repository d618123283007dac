package job

import (
	"encoding/json"
	"slices"
)

// FlagNames returns the names in a flags column, sorted. The column holds an
// object whose keys are the flags; anything else somebody may have stored there
// is no flag.
func FlagNames(column json.RawMessage) []string {
	if len(column) == 0 {
		return nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(column, &object) != nil || len(object) == 0 {
		return nil
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
