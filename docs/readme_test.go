package docs

import (
	"os"
	"strings"
	"testing"
)

// README stays short enough to be read: what it has no room for has a page of its
// own in docs.
func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	const most = 1200
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if words := len(strings.Fields(string(text))); words > most {
		t.Errorf("README.md has %d words, of at most %d", words, most)
	}
}
