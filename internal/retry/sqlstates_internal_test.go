package retry

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestTableOfStates: every class of PostgreSQL's appendix is there, and everything
// that is there has a reason and differs from its class.
func TestTableOfStates(t *testing.T) {
	for _, class := range []string{
		"00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24",
		"25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54",
		"55", "57", "58", "72", "F0", "HV", "P0", "XX",
	} {
		if classes[class].reason == "" {
			t.Errorf("class %s is missing", class)
		}
	}
	for code, r := range states {
		of, ok := classes[code[:2]]
		if len(code) != 5 || !ok || r.reason == "" {
			t.Errorf("%q: %+v", code, r)
		}
		if r.class == of.class && !r.elsewhere && code != "57014" && code[:3] != "57P" {
			t.Errorf("%s is as its class is", code)
		}
	}
}

// SQLSTATEs have names in the code: pgerrcode's, or a constant that says what it is.
func TestSQLStatesAreNamed(t *testing.T) {
	literal := regexp.MustCompile(`"(?:[0-9][0-9A-Z]{4}|(?:F0|HV|P0|XX)[0-9A-Z]{3})"`)
	root := os.DirFS("../..")
	files := 0
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (path == "bench" || entry.Name() == "node_modules" || entry.Name() == "dbgen"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		source, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		number := 0
		for line := range strings.Lines(string(source)) {
			number++
			if found := literal.FindString(line); found != "" && !strings.HasPrefix(line, "const ") {
				t.Errorf("%s:%d has %s: name it", path, number, found)
			}
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Errorf("%d files, %v", files, err)
	}
}
