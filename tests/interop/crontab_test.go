package interop_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gworker/gworker/internal/cron"
	"github.com/gworker/gworker/tests/interop/node"
)

// crontabs are read by both sides. Where only one takes a text, it is not here,
// but in the test of what differs.
var crontabs = []string{
	"* * * * * t",
	"0 4 * * * t\n30 4,5 */5 1-6 7 u ?id=x\n# c\n\n\t*/7 0-23 1-31 1,2,3 0-7 v \r\n",
	"0 0 13 * 5 a\n0 0 1-31 * 5 b\n0 0 */5 * 0-6 c\n0 0 */1 * 1,3 d\n5 5 31 2 0 e\n*/99 */99 */99 */99 */99 f",
	"00 023 * * 07 t",
	"* * * * * _a-b:c ?id=a-_1&fill=4w3d2h1m9s1s&max=7&queue=q:_-1&jobKey=k%20%26+é&jobKeyMode=preserve_run_at&priority=-3",
	"* * * * * t ?&jobKey=100%&&priority=5",
	"* * * * * t ?jobKeyMode=replace",
	"* * * * * t ?fill=0m",
	"* * * * * t {}",
	"* * * * * t ?id=a {a: [1, +2, .5, 5., 0xF,], 'b': \"x\\x41\\u0042\\v\\q\", c: {d: null, e: true}, $_1é: -1e3}",
	"* * * * * t {a: Infinity, b: -Infinity, c: NaN, a: 1e400} // }",
	"* * * * * t {\"tab\": '\t', lone: '\\ud83d'/* comment */}",
	"* * * * *\u00a0t\u3000{a: '\u00a0'}",
	"\ufeff* * * * * t",
	"\u1680* *\u2000*\u200a*\u202f* *\u205ft\v?id=a\f{a: 1}\u2028",
	"*\u2028*\r* *\u2029* *\u3000t",
	"",
	"#",
	// Errors.
	"\u0085* * * * * t", "*\u0085* * * * t", "* * * * * t\u0085{a: 1}", "\u0085", "\u180e* * * * * t", "*\u200b* * * * t",
	"* * * * * t\r?id=a", "* * * * * t\u2028{a: 1}", "* * * * * t ?id=a\u2029{a: 1}",
	"x", "* * * * *", "* * * * t", "* * * * * t ?", "* * * * * t x", "* * * * * t [1]", "* * * * * 1t", "* * * * * té",
	"60 * * * * t", "* 24 * * * t", "* * 0 * * t", "* * 32 * * t", "* * * 0 * t", "* * * 13 * t", "* * * * 8 t",
	"5-5 * * * * t", "6-5 * * * * t", "*/0 * * * * t", "*/ * * * * t", "*/-1 * * * * t", "1-5/2 * * * * t", ", * * * * t",
	"1,,2 * * * * t", "-1 * * * * t", "* * * jan * t", "* * * * mon t", "*5 * * * * t", "1- * * * * t", "? * * * * t",
	"@daily t", "CRON TZ=UTC", "MAILTO=x",
	"* * * * * t ?id=", "* * * * * t ?id=1", "* * * * * t ?id=a&id=b", "* * * * * t ?id=a.b", "* * * * * t ?x=1",
	"* * * * * t ?toString=1", "* * * * * t ?fill=1", "* * * * * t ?fill=1y", "* * * * * t ?fill=", "* * * * * t ?fill=1m%20",
	"* * * * * t ?max=x", "* * * * * t ?max=-1", "* * * * * t ?queue=a/b", "* * * * * t ?queue=", "* * * * * t ?jobKeyMode=unsafe_dedupe",
	"* * * * * t ?priority=1.5", "* * * * * t ?priority=--1", "* * * * * t ?ID=a",
	"* * * * * t {", "* * * * * t {a}", "* * * * * t {a: 1,,}", "* * * * * t {a: 01}", "* * * * * t {a: '\\01'}", "* * * * * t {a-b: 1}",
	"* * * * * t {a: 1} {b: 2}", "* * * * * t {a: 1} x", "* * * * * t {a: 'x}", "* * * * * t {a: undefined}", "* * * * * t{a: 1}",
	"* * * * * t\n* * * * * t", "* * * * * t\n* * * * * u ?id=t", "* * * * * t {a: + 1}", "* * * * * t {a: 1x}", "* * * * * t {a: 0x}",
}

// readCrontab is a crontab entry as either side understands it.
type readCrontab struct {
	Task       string `json:"task"`
	Identifier string `json:"identifier"`
	Fill       int64  `json:"fill"` // milliseconds
	Max        int    `json:"max"`
	Queue      string `json:"queue"`
	Key        string `json:"key"`
	Priority   int    `json:"priority"`
	Payload    string `json:"payload"`
	Matches    string `json:"matches"`
}

func readWithGworker(t *testing.T, text string, times []time.Time) (read []readCrontab, err error) {
	t.Helper()
	items, errs := cron.Parse(text)
	if len(errs) > 0 {
		return nil, errs
	}
	for n := range items {
		i := &items[n]
		var matches strings.Builder
		for _, at := range times {
			if i.Matches(at) {
				matches.WriteByte('1')
			} else {
				matches.WriteByte('0')
			}
		}
		payload := "{}"
		if i.Payload != nil {
			payload = string(i.Payload)
		}
		read = append(read, readCrontab{
			Task: i.Task, Identifier: i.Identifier, Fill: i.Fill.Milliseconds(), Max: i.MaxAttempts, Queue: i.Queue, Key: i.Key,
			Priority: i.Priority, Payload: payload, Matches: matches.String(),
		})
	}
	return read, nil
}

// readWithNode is what a version makes of each of the texts: its items, or an
// error's text.
func readWithNode(t *testing.T, v node.Version, texts []string, times []time.Time) []report {
	t.Helper()
	j := newJournal()
	o := order{Package: v.Package, Crontabs: texts, Times: times}
	start(t, v.String()+" crontabs", node.Require(t).Command(t.Context(), t, "cron.mjs"), o, j).wait(t)
	var told []report
	for _, e := range j.events {
		if e.Event == "crontab" {
			told = append(told, e)
		}
	}
	if len(told) != len(texts) {
		t.Fatalf("%s told of %d crontabs, not of %d", v, len(told), len(texts))
	}
	return told
}

func TestCrontabsMeanTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var times []time.Time
	for range 3000 {
		times = append(times, begin.Add(time.Duration(random.IntN(6*365*24*60))*time.Minute))
	}
	for day := range 800 { // when daily entries run
		times = append(times, begin.AddDate(0, 0, day), begin.AddDate(0, 0, day).Add(4*time.Hour))
	}
	texts := append(randomCrontabs(random, 200), crontabs...)
	forEachNode(t, func(t *testing.T, v node.Version) {
		for i, theirs := range readWithNode(t, v, texts, times) {
			ours, err := readWithGworker(t, texts[i], times)
			if (err != nil) != (theirs.Error != "") {
				t.Errorf("%q:\n gworker: %v\n node: %s", texts[i], err, theirs.Error)
				continue
			}
			if len(ours) != len(theirs.Items) {
				t.Errorf("%q: gworker has %d items, node %d", texts[i], len(ours), len(theirs.Items))
				continue
			}
			for n := range ours {
				if !sameJSON(t, ours[n].Payload, theirs.Items[n].Payload) {
					t.Errorf("%q: payloads\n gworker: %s\n node: %s", texts[i], ours[n].Payload, theirs.Items[n].Payload)
				}
				ours[n].Payload, theirs.Items[n].Payload = "", ""
				if ours[n] != theirs.Items[n] {
					t.Errorf("%q:\n gworker: %+v\n node: %+v", texts[i], ours[n], theirs.Items[n])
				}
			}
		}
	})
}

// randomCrontabs are lines of random fields, some of which are errors.
func randomCrontabs(random *rand.Rand, n int) (texts []string) {
	pieces := []string{"*", "*", "*", "*/2", "*/5", "*/13", "0", "1", "2-4", "0-6", "3,4", "1-12", "5,*/9", "1-31", "59", "7"}
	for range n {
		var fields []string
		for range 5 {
			fields = append(fields, pieces[random.IntN(len(pieces))])
		}
		texts = append(texts, strings.Join(fields, " ")+" t")
	}
	return texts
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Errorf("%s: %v", a, err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Errorf("%s: %v", b, err)
	}
	return reflect.DeepEqual(x, y)
}

// What Node takes and cannot schedule, or we take and Node does not know.
func TestCrontabsThatDiffer(t *testing.T) {
	onlyNode := []string{
		"* * * * * t ?max=0", "* * * * * t ?max=99999", "* * * * * t ?priority=99999", "* * * * * t ?jobKey=",
		"* * * * * " + strings.Repeat("t", 129),
	}
	onlyGworker := []string{
		"* * * * * t ?tz=Europe/Paris", "CRON_TZ=Europe/Paris\n* * * * * t", "* * * * * t ?job_key=k", "* * * * * t ?job_key_mode=replace",
		"* * * * * t {a: '\u2028'}",
	}
	texts := slices.Concat(onlyNode, onlyGworker)
	forEachNode(t, func(t *testing.T, v node.Version) {
		for i, theirs := range readWithNode(t, v, texts, nil) {
			text, wantNode := texts[i], i < len(onlyNode)
			_, err := readWithGworker(t, text, nil)
			if (err == nil) == wantNode || (theirs.Error == "") != wantNode {
				t.Errorf("%q:\n gworker: %v\n node: %s", text, err, theirs.Error)
			}
		}
	})
}
