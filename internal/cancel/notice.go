package cancel

import "encoding/json"

// Channel is where cancellations are announced. It belongs to the database, not
// to the schema; the id of the worker tells whose an announcement is.
const Channel = "gworker:cancel"

// Concerns reports whether an announcement is for the worker. One that cannot be
// read is: looking once too often costs little.
func Concerns(payload, workerID string) bool {
	var notice struct {
		Worker string `json:"worker"`
	}
	if json.Unmarshal([]byte(payload), &notice) != nil {
		return true
	}
	return notice.Worker == workerID
}
