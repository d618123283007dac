package recovery

import "strings"

// RuntimeOf tells which Graphile Worker writes ids of this form into locked_by:
// "gworker", "node" or "rust", or "" if none does.
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
