package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gworker/gworker/internal/contain"
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

// EncodePayload is a payload as JSON text: nil is {}, and text is left as it is. A panic
// of the payload's methods is an error.
func EncodePayload(payload any) (json.RawMessage, error) {
	if payload == nil {
		return json.RawMessage("{}"), nil
	}
	raw, ok := payload.(json.RawMessage)
	switch {
	case !ok:
		raw, err := marshal(payload)
		if err != nil {
			return nil, fmt.Errorf("cannot be encoded as JSON: %w", err)
		}
		return raw, nil
	case len(raw) == 0:
		return json.RawMessage("{}"), nil
	}
	if wrong := PayloadProblem(raw); wrong != "" {
		return nil, errors.New(wrong)
	}
	if !utf8.Valid(raw) {
		return nil, errors.New("is not valid UTF-8")
	}
	return raw, nil
}

func marshal(payload any) (raw json.RawMessage, err error) {
	defer func() {
		if value := recover(); value != nil {
			raw, err = nil, contain.Recovered(value)
		}
	}()
	return json.Marshal(payload)
}
