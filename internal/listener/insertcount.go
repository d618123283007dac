package listener

import (
	"encoding/json"
	"math"
	"strconv"
)

// InsertCount reads how many jobs a notification of jobs:insert announces. A payload that
// cannot be understood counts as one job: a needless claim costs less than a job that
// waits. Zero and less are returned as they are: the sender says that there is nothing to
// claim.
func InsertCount(payload string) int {
	var fields map[string]json.RawMessage // a struct would also take "COUNT"
	if err := json.Unmarshal([]byte(payload), &fields); err != nil {
		return 1
	}
	text := string(fields["count"])
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(text, 64) // of valid JSON only numbers parse
	switch {
	case err != nil:
		return 1
	case f >= math.MaxInt:
		return math.MaxInt
	case f <= math.MinInt:
		return math.MinInt
	}
	return int(f)
}
