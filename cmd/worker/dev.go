package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/terminal"
)

//go:embed exampletasks
var exampleFiles embed.FS

const (
	devDatabase = "gworker"
	exampleTask = "hello"
	// sharedExample is the example task on a database of the user's, where hello may be
	// a task of other workers.
	sharedExample  = "gworker_dev_hello"
	examplePayload = `{"name":"world"}`
	stopTimeout    = 15 * time.Second
)

type devFlags struct {
	once    bool
	data    string
	tasks   taskFlags
	crontab string
	jobs    int
	// logJobs is set by --log-level: jobs are printed and logged then.
	logJobs bool
}

func newDevCommand(shared *sharedFlags) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try it: a private PostgreSQL, an example job, and a worker",
		Long: `dev starts a PostgreSQL of its own (or uses DATABASE_URL), installs the schema,
loads ./tasks and ./crontab, if there are any, and an example task, adds one
example job, runs it, says what to try next, and goes on working until Ctrl-C.
Other accounts of the machine cannot connect to the database.

The example task is ` + exampleTask + `, unless there is one of that name in ./tasks, which runs
then; on a database that you name it is ` + sharedExample + `, so that it takes no jobs
that are meant for a task of yours.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer outliveReaders()()
			f.logJobs = cmd.Flags().Changed("log-level")
			if !f.logJobs {
				shared.logLevel = "warn" // jobs are printed; log lines would hide them
			}
			logger, err := shared.logger(cmd)
			if err != nil {
				return err
			}
			crontab, err := loadCrontab(cmd, f.crontab, f.tasks.dir)
			if err != nil {
				return err
			}
			return runDev(cmd.Context(), shared, f, crontab, logger)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.once, "once", false, "end when nothing is runnable")
	flags.StringVar(&f.data, "data", "", "folder that keeps the database (default: gworker/dev in the user's cache folder)")
	f.tasks.register(cmd)
	flags.StringVar(&f.crontab, "crontab", "", crontabUsage)
	flags.IntVarP(&f.jobs, "jobs", "j", gworker.DefaultConcurrency, "how many jobs run at once")
	return cmd
}

func runDev(ctx context.Context, shared *sharedFlags, f devFlags, crontab crontabFile, logger *zap.Logger) (err error) {
	// A signal can arrive before the worker exists.
	var abandon func()
	var mu sync.Mutex
	ctx, release := untilSignal(ctx, logger, time.Now, func() {
		mu.Lock()
		defer mu.Unlock()
		if abandon != nil {
			abandon()
		}
	})
	defer release()

	url, dataDir, another := shared.url(), "", false
	if url == "" {
		if err := forgetClientSettings(); err != nil {
			return err
		}
		server, dir, startErr := startDevServer(ctx, shared.std.out, f.data)
		if startErr != nil {
			return startErr
		}
		defer func() {
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			err = errors.Join(err, server.Stop(stopCtx))
		}()
		url, dataDir, another = server.URL(devDatabase), dir, server.External()
	}

	session := devSession{shared: shared, url: url, dataDir: dataDir, another: another, once: f.once, out: shared.std.out}
	if err := session.loadTasks(f.tasks, logger); err != nil {
		return err
	}
	worker, err := session.worker(f, crontab, logger)
	if err != nil {
		return err
	}
	defer worker.Close()
	mu.Lock()
	abandon = worker.Abandon
	mu.Unlock()
	if err := session.addExample(ctx); err != nil {
		return err
	}
	if another {
		session.sayNext() // the other one runs the example job
	}
	if f.once {
		return worker.RunOnce(ctx)
	}
	if len(crontab.items) > 0 {
		session.say("cron adds the jobs of %s (%s)\n", crontab.path, counted(len(crontab.items), "item"))
		crontab.announce(session.tasks, logger)
	}
	return worker.Run(ctx)
}

// forgetClientSettings removes libpq's PG* variables from the environment, which are for
// other servers. The private server's connection string overrides most of them, but not
// PGSERVICE, PGOPTIONS, PGREQUIREAUTH and the like.
func forgetClientSettings() error {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "PG") {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("removing %s from the environment: %w", name, err)
		}
	}
	return nil
}

// startDevServer starts the private server, and also returns the folder of its data.
func startDevServer(ctx context.Context, out io.Writer, dir string) (*devpg.Server, string, error) {
	if dir == "" {
		var err error
		if dir, err = devpg.DefaultDataDir(); err != nil {
			return nil, "", err
		}
	}
	server, err := devpg.Start(ctx, devpg.Options{
		DataDir:  dir,
		Database: devDatabase,
		Private:  true,
		Progress: func(message string) { terminal.Fprintf(out, "%s\n", message) },
	})
	if err != nil {
		return nil, "", fmt.Errorf("starting a private PostgreSQL: %w", err)
	}
	return server, dir, nil
}

// devSession is one run of dev: what it loads, adds and prints.
type devSession struct {
	shared  *sharedFlags
	url     string
	dataDir string // empty on a database of the user's
	another bool   // another dev has started the server, and stops it
	once    bool
	out     io.Writer
	tasks   []gworker.Task
	example bool // there are only the example tasks
	// ownExample says that the user has a task for the example job.
	ownExample bool

	mu      sync.Mutex
	next    sync.Once
	claimed atomic.Bool // a job
}

// exampleTask is the example job's task.
func (s *devSession) exampleTask() string {
	if s.dataDir == "" {
		return sharedExample
	}
	return exampleTask
}

// loadTasks loads the folder, or the examples if there is none. It adds the task of the
// example job in either case.
func (s *devSession) loadTasks(files taskFlags, logger *zap.Logger) error {
	folder := "exampletasks/own"
	if s.dataDir == "" {
		folder = "exampletasks/shared"
	}
	examples, err := fs.Sub(exampleFiles, folder)
	if err != nil {
		return err
	}
	builtIn, err := gworker.LoadTasksFS(examples)
	if err != nil {
		return err
	}
	tasks, err := files.load(logger)
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
	s.ownExample = named[s.exampleTask()]
	for _, task := range builtIn.Tasks {
		if !named[task.Identifier()] {
			tasks = append(tasks, task)
		}
	}
	s.tasks = tasks
	return nil
}

func (s *devSession) worker(f devFlags, crontab crontabFile, logger *zap.Logger) (*gworker.Worker, error) {
	observe := s.observe(gworker.LogObserver(bridge(logger)), f.logJobs)
	return gworker.NewWorker(gworker.Config{
		DatabaseURL: s.url, Schema: s.shared.schemaName(), NoPreparedStatements: s.shared.unprepared,
		Tasks: s.tasks, Concurrency: f.jobs, Cron: crontab.config(),
		Logger: silence, Observers: []func(event.Event){observe},
	})
}

// addExample installs the schema and adds the example job. Because of its key, at most one
// is in the queue, however often dev is started.
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
	job, err := client.AddJob(ctx, gworker.JobSpec{
		Task: s.exampleTask(), Payload: json.RawMessage(examplePayload), Key: "gworker dev example",
	})
	if err != nil {
		return err
	}
	s.say("added an example job: %s %s (job %d)\n", job.Task, job.Payload, job.ID)
	return nil
}
