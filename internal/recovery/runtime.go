package recovery

import "strings"

// RuntimeOf returns the runtime whose workers write ids of this form into locked_by:
// "gworker", "node" or "rust", or "" for other ids.
func RuntimeOf(id string) string {
	switch {
	case strings.HasPrefix(id, OwnPrefix):
		return "gworker"
	case strings.HasPrefix(id, rustPrefix):
		return "rust"
	case isNode(id):
		return "node"
	}
	return ""
}
