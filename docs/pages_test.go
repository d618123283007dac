package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const indexPage = "README.md"

// pagesOfTheDocs returns the pages of docs/ by file name, the index excepted.
func pagesOfTheDocs(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]string)
	for _, file := range files {
		if file == indexPage {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pages[file] = string(text)
	}
	if len(pages) < 20 {
		t.Fatalf("found %d pages", len(pages))
	}
	return pages
}

// wellFormed says what is wrong with the shape of a page, "" if nothing is.
func wellFormed(page string) string {
	title, rest, _ := strings.Cut(page, "\n\n")
	blocks := strings.Split(strings.TrimSpace(page), "\n\n")
	purpose, next := strings.SplitN(rest, "\n\n", 2)[0], blocks[len(blocks)-1]
	for _, line := range strings.Split(purpose, "\n") {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "- ") ||
			strings.HasPrefix(line, "```") || strings.HasPrefix(line, "    ") {
			return "does not begin with a paragraph on what it is for"
		}
	}
	switch {
	case !strings.HasPrefix(title, "# ") || strings.Contains(title, "\n"):
		return "does not begin with one heading: " + title
	case !readers.MatchString(strings.Join(strings.Fields(purpose), " ")):
		return `does not say in its first paragraph who needs it ("Read this if ...", "You can skip this unless ...")`
	case !strings.HasPrefix(next, "Next: ") || !pageLink.MatchString(next):
		return `does not end with a paragraph "Next: " that links to the page to read next`
	}
	return ""
}

var (
	readers  = regexp.MustCompile(`(?i)\b(read this|skip this|look things up|for (?:people|services) (?:who|that))\b`)
	pageLink = regexp.MustCompile(`\]\([a-z-]+\.md(#[a-z-]+)?\)|\]\(README\.md\)`)
)

// Every page begins with a heading and with what it is for and who needs it, and ends
// with the page to read next. The index has each page once.
func TestPagesOfTheDocs(t *testing.T) {
	index, err := os.ReadFile(indexPage)
	if err != nil {
		t.Fatal(err)
	}
	for file, page := range pagesOfTheDocs(t) {
		if problem := wellFormed(page); problem != "" {
			t.Errorf("%s %s", file, problem)
		}
		if n := strings.Count(string(index), "]("+file+")"); n != 1 {
			t.Errorf("%s is %d times in the index, %s", file, n, indexPage)
		}
	}
}

// wellFormed finds each fault that a page can have.
func TestWellFormedFindsFaults(t *testing.T) {
	const good = "# Jobs\n\nRead this if you have jobs.\n\n## More\n\ntext\n\nNext: [tasks](tasks.md).\n"
	if problem := wellFormed(good); problem != "" {
		t.Errorf("a good page %s", problem)
	}
	for _, faulty := range []string{
		strings.TrimPrefix(good, "# "),
		strings.Replace(good, "# Jobs\n\n", "# Jobs\n", 1),
		strings.Replace(good, "Read this if you have jobs.", "Jobs.", 1),
		strings.Replace(good, "Read this if", "- Read this if", 1),
		strings.Replace(good, "Read this if you have jobs.\n\n", "", 1),
		strings.Replace(good, "Next: ", "See ", 1),
		strings.Replace(good, "[tasks](tasks.md)", "tasks", 1),
		good + "\nafterthought\n",
	} {
		if wellFormed(faulty) == "" {
			t.Errorf("nothing is wrong with %q", faulty)
		}
	}
}

// retired are words that readers stumbled over, each with what to write instead.
var retired = map[string]string{
	"taken for dead": "declared dead",
	"all the same":   "still, anyway",
	"come by":        "reach, be seen by", "comes by": "reaches, is seen by",
	"somebody": "who it is: another worker, a session, you",
	"any more": "no longer", "for ever": "forever, without end",
	"beside": "next to; while", "whose to": "who decides",
	"dear claim": "expensive claim", "in no case": "never", "is no JSON5": "is not JSON5",
}

// Pages use none of the retired words, whether on one line or two.
func TestRetiredWordsInTheDocs(t *testing.T) {
	pages := pagesOfTheDocs(t)
	for _, file := range []string{indexPage, "../README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pages[file] = string(text)
	}
	for file, page := range pages {
		for _, words := range retiredIn(page) {
			t.Errorf("%s says %q: write %q", file, words, retired[words])
		}
	}
	if found := retiredIn("It comes\n  by. Somebody was taken for\ndead."); !slices.Equal(found, []string{"comes by", "somebody", "taken for dead"}) {
		t.Errorf("found %q", found)
	}
}

// Comments and texts of the sources use none of them, either.
func TestRetiredWordsInTheSources(t *testing.T) {
	t.Parallel()
	passed := map[string]bool{
		"docs/pages_test.go": true, // has them all
		// The hint of an exception that the shared schema raises, and who checks it.
		"db/migrations/000019_key_locks.sql":   true,
		"internal/migrate/adding_race_test.go": true,
	}
	files := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		if entry.IsDir() {
			if slices.Contains([]string{".git", "node_modules", "target", "internal/dbgen"}, name) ||
				slices.Contains([]string{"node_modules", "target"}, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".go", ".sql", ".mjs", ".rs"}, filepath.Ext(name)) || passed[name] {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, words := range retiredIn(commentMarks.ReplaceAllString(string(text), "\n")) {
			t.Errorf("%s says %q: write %q", name, words, retired[words])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Errorf("only %d files were read", files)
	}
}

// commentMarks are what stands before each line of a comment.
var commentMarks = regexp.MustCompile(`\n\s*(?://|--)`)

// retiredIn returns the retired words in a text, sorted.
func retiredIn(text string) []string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	var found []string
	for words := range retired {
		if regexp.MustCompile(`\b` + strings.ToLower(words) + `\b`).MatchString(text) {
			found = append(found, words)
		}
	}
	slices.Sort(found)
	return found
}

// Tests and benchmarks that pages give as the source of what they say exist.
func TestSourcesInTheDocs(t *testing.T) {
	defined := make(map[string]bool)
	for _, pattern := range []string{"../*_test.go", "../internal/*/*_test.go", "../tests/*/*_test.go", "../cmd/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range definition.FindAllStringSubmatch(string(source), -1) {
				defined[match[1]] = true
			}
		}
	}
	named := 0
	for file, page := range pagesOfTheDocs(t) {
		page = fenced.ReplaceAllString(page, "")
		for _, match := range testName.FindAllStringSubmatch(page, -1) {
			named++
			if !defined[match[1]] {
				t.Errorf("%s names %s, which does not exist", file, match[1])
			}
		}
		for _, match := range benchmark.FindAllStringSubmatch(page, -1) {
			named++
			found := false
			for name := range defined {
				found = found || strings.HasPrefix(name, "Benchmark"+match[1])
			}
			if !found {
				t.Errorf("%s names the benchmark %s, which does not exist", file, match[1])
			}
		}
	}
	if named < 30 {
		t.Errorf("found %d names", named)
	}
}

var (
	definition = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
	testName   = regexp.MustCompile("`(Test[A-Z]\\w+)`")
	benchmark  = regexp.MustCompile(`-bench (\w+)`)
	fenced     = regexp.MustCompile("(?ms)^```.*?^```$")
)
