package job

import (
	"encoding/json"
	"errors"
	"strings"
)

// PayloadProblem is what is wrong with the text of a payload, as what is said about it;
// "" if it is JSON. What is nested deeper than encoding/json reads is, but no handler
// could decode it.
func PayloadProblem(text []byte) string {
	if json.Valid(text) {
		return ""
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, new(json.RawMessage)); errors.As(err, &syntax) && strings.Contains(syntax.Error(), "max depth") {
		return "is nested too deeply: JSON can have 10,000 levels here"
	}
	return "is not valid JSON"
}
