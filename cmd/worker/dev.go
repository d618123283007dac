package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/devpg"
)

//go:embed exampletasks
var exampleFiles embed.FS

const (
	devDatabase    = "gworker"
	exampleTask    = "hello"
	examplePayload = `{"name":"world"}`
	stopTimeout    = 15 * time.Second
)

type devFlags struct {
	once  bool
	data  string
	tasks string
	jobs  int
}

func newDevCommand(shared *sharedFlags) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try it: a private PostgreSQL, an example job, and a worker",
		Long: `dev starts a PostgreSQL of its own (or uses DATABASE_URL), installs the schema,
loads ./tasks - without that folder, an example task - adds one example job,
runs it, says what to try next, and goes on working until Ctrl-C.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("log-level") {
				shared.logLevel = "warn" // what ran is printed; the rest would hide it
			}
			logger, err := shared.logger(cmd)
			if err != nil {
				return err
			}
			return runDev(cmd.Context(), shared, f, logger)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.once, "once", false, "end when nothing is runnable")
	flags.StringVar(&f.data, "data", "", "folder that keeps the database (default: gworker/dev in the user's cache folder)")
	flags.StringVar(&f.tasks, "tasks", "tasks", "folder of task files")
	flags.IntVarP(&f.jobs, "jobs", "j", gworker.DefaultConcurrency, "how many jobs run at once")
	return cmd
}

func runDev(ctx context.Context, shared *sharedFlags, f devFlags, logger *zap.Logger) (err error) {
	// The worker does not exist yet when a signal may already come.
	var abandon func()
	var mu sync.Mutex
	ctx, release := untilSignal(ctx, logger, func() {
		mu.Lock()
		defer mu.Unlock()
		if abandon != nil {
			abandon()
		}
	})
	defer release()

	url := shared.url()
	if url == "" {
		server, startErr := startDevServer(ctx, shared.std.out, f.data)
		if startErr != nil {
			return startErr
		}
		defer func() {
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			err = errors.Join(err, server.Stop(stopCtx))
		}()
		url = server.URL(devDatabase)
	}

	session := devSession{shared: shared, url: url, out: shared.std.out}
	if err := session.loadTasks(f.tasks, logger); err != nil {
		return err
	}
	worker, err := session.worker(f, logger)
	if err != nil {
		return err
	}
	mu.Lock()
	abandon = worker.Abandon
	mu.Unlock()
	if err := session.addExample(ctx); err != nil {
		return err
	}
	if f.once {
		return worker.RunOnce(ctx)
	}
	return worker.Run(ctx)
}

func startDevServer(ctx context.Context, out io.Writer, dir string) (*devpg.Server, error) {
	if dir == "" {
		var err error
		if dir, err = devpg.DefaultDataDir(); err != nil {
			return nil, err
		}
	}
	server, err := devpg.Start(ctx, devpg.Options{
		DataDir:  dir,
		Database: devDatabase,
		Progress: func(message string) { fmt.Fprintln(out, message) },
	})
	if err != nil {
		return nil, fmt.Errorf("starting a private PostgreSQL: %w", err)
	}
	return server, nil
}

// devSession is one run of dev: what it loads, adds and prints.
type devSession struct {
	shared  *sharedFlags
	url     string
	out     io.Writer
	tasks   []gworker.Task
	example bool // the example tasks are all there is

	mu      sync.Mutex
	printed bool
}

// loadTasks loads the folder, or the examples if there is none. The example job
// needs its task either way.
func (s *devSession) loadTasks(dir string, logger *zap.Logger) error {
	examples, err := fs.Sub(exampleFiles, "exampletasks")
	if err != nil {
		return err
	}
	builtIn, err := gworker.LoadTasksFS(examples)
	if err != nil {
		return err
	}
	tasks, err := loadTasks(dir, logger)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, gworker.ErrNoTasks):
		s.example = true
		tasks = nil
	case err != nil:
		return err
	}
	named := make(map[string]bool, len(tasks))
	for _, task := range tasks {
		named[task.Identifier()] = true
	}
	for _, task := range builtIn.Tasks {
		if !named[task.Identifier()] {
			tasks = append(tasks, task)
		}
	}
	s.tasks = tasks
	return nil
}

func (s *devSession) worker(f devFlags, logger *zap.Logger) (*gworker.Worker, error) {
	return gworker.NewWorker(gworker.Config{
		DatabaseURL: s.url, Schema: s.shared.schemaName(), NoPreparedStatements: s.shared.unprepared,
		Tasks: s.tasks, Concurrency: f.jobs, Logger: logger, Observers: []func(gworker.Event){s.observe},
	})
}

// addExample installs the schema and adds the example job. Its key keeps one
// of it in the queue, however often dev is started.
func (s *devSession) addExample(ctx context.Context) error {
	client, err := gworker.NewClient(gworker.ClientConfig{
		DatabaseURL: s.url, Schema: s.shared.schemaName(), NoPreparedStatements: s.shared.unprepared,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Migrate(ctx); err != nil {
		return fmt.Errorf("installing the schema: %w", err)
	}
	_, err = client.AddJob(ctx, gworker.JobSpec{
		Task: exampleTask, Payload: json.RawMessage(examplePayload), Key: "gworker dev example",
	})
	return err
}

// observe prints what ran, and after the first job what to try next.
func (s *devSession) observe(e gworker.Event) {
	switch e := e.(type) {
	case gworker.JobCompleted:
		s.ran("ran %s (job %d) in %s\n", e.Job.Task, e.Job.ID, e.Duration.Round(10*time.Microsecond))
	case gworker.JobFailed:
		s.ran("%s (job %d) failed, tries again at %s: %v\n",
			e.Job.Task, e.Job.ID, e.NextRunAt.Local().Format(time.TimeOnly), e.Err)
	case gworker.JobPermanentlyFailed:
		s.ran("%s (job %d) failed for good: %v\n", e.Job.Task, e.Job.ID, e.Err)
	}
}

func (s *devSession) ran(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format, args...)
	if !s.printed {
		s.printed = true
		s.printNext()
	}
}

func (s *devSession) printNext() {
	fmt.Fprintf(s.out, `
The database:
  psql '%s'

Try next:
  1. Add a job from any SQL session, and see it run here:
     psql '%s' -c "select %s.add_job('%s', '{\"name\":\"you\"}')"
`, hideSecrets(s.url), hideSecrets(s.url), nameInShell(s.shared.schemaOrDefault()), exampleTask)
	if s.example {
		fmt.Fprint(s.out, `     (the greetings it writes: table greetings)
  2. Write a task of your own, then start this again:
     mkdir -p tasks && printf '#!/bin/sh\ncat\n' > tasks/echo.sh && chmod +x tasks/echo.sh

Working until Ctrl-C.
`)
		return
	}
	fmt.Fprintf(s.out, `  2. Add a job for a task of yours:
     worker add %s -c '%s'

Working until Ctrl-C.
`, s.tasks[0].Identifier(), hideSecrets(s.url))
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// nameInShell is an SQL name for use between a shell's double quotes.
func nameInShell(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(quoted)
}
