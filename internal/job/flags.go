package job

import (
	"encoding/json"
	"slices"
)

// FlagNames returns the names in a flags column, sorted. The column holds an
// object whose keys are the flags; anything else that may be stored there
// is no flag, and neither is CancelMark.
func FlagNames(column json.RawMessage) []string {
	if len(column) == 0 {
		return nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(column, &object) != nil {
		return nil
	}
	delete(object, CancelMark)
	if len(object) == 0 {
		return nil
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
