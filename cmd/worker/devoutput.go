package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/terminal"
)

// observe prints jobs, and after the first one what to try next. Other events, or all, go to
// the log.
func (s *devSession) observe(log func(event.Event), logJobs bool) func(event.Event) {
	return func(e event.Event) {
		if !s.print(e) || logJobs {
			log(e)
		}
	}
}

func (s *devSession) print(e event.Event) bool {
	switch e := e.(type) {
	case event.TaskOutput:
		s.say("%s (job %d): %s\n", e.Job.Task, e.Job.ID, e.Line)
		return true
	case event.CronScheduled:
		s.sayScheduled(e.Jobs, e.Minute)
		return true
	case event.CronBackfilled:
		s.sayScheduled(e.Jobs, e.Minute)
		return true
	case event.JobCompleted:
		s.say("ran %s (job %d) in %s\n", e.Job.Task, e.Job.ID, e.Duration.Round(10*time.Microsecond))
	case event.JobFailed:
		s.say("%s (job %d) failed, tries again at %s: %v\n",
			e.Job.Task, e.Job.ID, e.NextRunAt.Local().Format(time.TimeOnly), e.Err)
	case event.JobPermanentlyFailed:
		s.say("%s (job %d) failed for good: %v\n", e.Job.Task, e.Job.ID, e.Err)
	case event.JobsClaimed:
		s.claimed.Store(true)
		return false
	case event.ClaimEmpty:
		if !s.claimed.Load() {
			s.sayNext() // another worker has taken the example job
		}
		return false
	default:
		return false
	}
	s.sayNext()
	return true
}

func (s *devSession) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	terminal.Fprintf(s.out, format, args...)
}

// sayText prints lines whose values are escaped already.
func (s *devSession) sayText(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.out, text)
}

func (s *devSession) sayScheduled(jobs []event.CronJob, minute time.Time) {
	for _, j := range jobs {
		s.say("cron added %s (job %d) for %s\n", j.Task, j.JobID, minute.Local().Format("15:04"))
	}
}

// sayNext prints what to try next, once.
func (s *devSession) sayNext() { s.next.Do(func() { s.sayText(s.nextSteps()) }) }

func (s *devSession) nextSteps() string {
	if s.once && s.dataDir != "" && !s.another {
		return terminalText("\nStopping the database when nothing is runnable. The data stays in %s.\n"+
			"Without --once it goes on, and there is more to try.\n", s.dataDir)
	}
	url := forShell(hideSecrets(s.url))
	see := "see it run here at once"
	if s.once {
		see = "start this again to run it"
	}
	text := terminalText(`
The database:
  psql %s

Try next:
  1. Add a job from any SQL session, and %s:
     psql %s -c "select %s.add_job('%s', '{\"name\":\"you\"}')"
`, url, see, url, nameInShell(s.shared.schemaOrDefault()), s.exampleTask())
	switch {
	case s.ownExample:
		text += "     (its task is the one in your tasks folder)\n"
	case s.dataDir != "":
		text += "     (it writes its greeting into the table greetings)\n"
	}
	text += s.taskSteps(url)
	end := "Working until Ctrl-C."
	switch {
	case s.once:
		end = "Ending when nothing is runnable; without --once the worker goes on."
	case s.another:
		end = "Working until Ctrl-C. The database goes when the one that started it ends."
	}
	if s.dataDir != "" {
		end += terminalText(" The data stays in %s.", s.dataDir)
	}
	return text + "\n" + end + "\n"
}

// terminalText is text with its values escaped.
func terminalText(format string, args ...any) string {
	var b strings.Builder
	terminal.Fprintf(&b, format, args...)
	return b.String()
}

// taskSteps prints how to run your own task.
func (s *devSession) taskSteps(url string) string {
	if s.example {
		return fmt.Sprintf(`  2. Write a task of your own, start this again, and add a job for it:
     mkdir -p tasks && printf '#!/bin/sh\ncat\n' > tasks/echo.sh && chmod +x tasks/echo.sh
     %s add echo --payload '{"hello":"world"}' -c %s
`, self(), url)
	}
	return fmt.Sprintf(`  2. Add a job for a task of yours:
     %s add %s -c %s
`, self(), forShell(s.tasks[0].Identifier()), url)
}

// self is how this program was called, as far as can be known.
func self() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/worker" // which builds into Go's own folders
	}
	return os.Args[0]
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=-]+$`)

// forShell is a word of a shell's command line, on one line.
func forShell(word string) string {
	switch {
	case plainWord.MatchString(word):
		return word
	case terminal.Line(word) != word:
		// The escapes of package terminal mean the same to bash, zsh and ksh here.
		return "$'" + terminal.Line(strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(word)) + "'"
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// nameInShell is an SQL name for use between a shell's double quotes.
func nameInShell(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(quoted)
}
