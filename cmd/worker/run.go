package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
)

type runFlags struct {
	once         bool
	jobs         int
	tasks        taskFlags
	crontab      string
	pollInterval time.Duration
	maxPoolSize  int
	noRecovery   bool
	claims       claimFlags
	history      historyFlags
	listenURL    string
	noListen     bool
	abortTimeout time.Duration
	endTimeout   time.Duration
	returnDelay  time.Duration
}

func newRunCommand(shared *sharedFlags) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run jobs until told to stop",
		Long: `run installs the schema or brings it up to date, loads the tasks folder and runs
jobs until it gets SIGINT or SIGTERM. It then lets running jobs finish, for as
long as --shutdown-abort-timeout says; a second signal ends it at once. Interrupted
jobs go back to the queue, with their attempt restored.

A task is a file: NAME.sql runs in a transaction in which the job's completion
commits too; an executable file gets {"payload": ...} on its standard input.
Files in folders make identifiers with slashes.

A crontab adds jobs at the times that it lists; "worker crontab check" checks one.
With --crontab and without a tasks folder, the worker only adds those jobs.

An option can also be a variable, GWORKER_POLL_INTERVAL for --poll-interval, or a
line "poll-interval: 5s" of the YAML file that --config names. The command line
comes first, then variables, then the file. --print-config shows what is used.`,
		Example: `  worker run --database-url postgres://app@db/app
  worker run --once --jobs 4 --tasks ./tasks
  worker run --config gworker.yaml --print-config`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if shared.settings.print {
				return shared.settings.printTo(shared.std.out, cmd)
			}
			logger, err := shared.logger(cmd)
			if err != nil {
				return err
			}
			defer outliveReaders()()
			shared.settings.warn(logger)
			crontab, err := loadCrontab(cmd, f.crontab, f.tasks.dir)
			if err != nil {
				return err
			}
			tasks, err := f.tasks.load(logger)
			switch {
			case errors.Is(err, fs.ErrNotExist) && len(crontab.items) > 0 && cmd.Flags().Changed("crontab") && !cmd.Flags().Changed("tasks"):
				logger.Warn("there is no tasks folder: this worker only adds the jobs of its crontab", zap.String("folder", f.tasks.dir))
			case err != nil:
				return err
			case !f.once:
				crontab.announce(tasks, logger)
			}
			config := f.claims.apply(cmd, gworker.Config{
				DatabaseURL: shared.url(), Schema: shared.schemaName(), NoPreparedStatements: shared.unprepared,
				Tasks: tasks, Concurrency: f.jobs, PollInterval: f.pollInterval,
				MaxPoolSize: f.maxPoolSize, ConnectTimeout: shared.connectTimeout,
				ListenDatabaseURL: f.listenDatabaseURL(), NoListen: f.noListen,
				Recovery: gworker.RecoveryConfig{Disabled: f.noRecovery}, Cron: crontab.config(),
				GracefulShutdownAbortTimeout: f.shutdownAbortTimeout(), ShutdownReturnDelay: f.returnDelay,
				ShutdownTimeout: f.endTimeout,
			})
			f.history.apply(&config)
			logEvents(&config, logger)
			worker, err := gworker.NewWorker(config)
			if err != nil {
				return shared.settings.explain(err)
			}
			return runUntilSignal(cmd.Context(), worker, f.once, logger)
		},
	}
	shared.settings.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.once, "once", false, "end when nothing is runnable")
	flags.IntVarP(&f.jobs, "jobs", "j", gworker.DefaultConcurrency, "how many jobs run at once")
	f.tasks.register(cmd)
	flags.StringVar(&f.crontab, "crontab", "", crontabUsage)
	flags.Var(newInterval(&f.pollInterval, gworker.DefaultPollInterval), "poll-interval",
		"longest time between two polls for jobs, such as 2s; a bare number is milliseconds")
	flags.IntVarP(&f.maxPoolSize, "max-pool-size", "m", 0, "most database connections of the pool (default --jobs + 4)")
	flags.BoolVar(&f.noRecovery, "no-recovery", false,
		"neither register nor look for dead workers: if this one dies, its jobs stay locked for 4 hours")
	f.claims.register(cmd)
	f.history.register(cmd)
	flags.StringVar(&f.listenURL, "listen-database-url", "",
		"connection string that bypasses a transaction-pooling proxy, for listening and the heartbeat (default $LISTEN_DATABASE_URL)")
	flags.BoolVar(&f.noListen, "no-listen", false, "do not listen: find new jobs only by polling")
	flags.DurationVar(&f.abortTimeout, "shutdown-abort-timeout", gworker.DefaultGracefulShutdownAbortTimeout,
		"how long running jobs may go on after the first signal; 0 is not at all")
	flags.DurationVar(&f.endTimeout, "shutdown-timeout", 0,
		"the whole shutdown ends within this time, whatever jobs and the database do (default: no bound)")
	flags.Var(newDuration(&f.returnDelay, 0), "shutdown-return-delay",
		"how long jobs that a shutdown interrupts wait before they can run again (default: not at all)")
	return cmd
}

// listenDatabaseURL is empty if the listener connects like the pool.
func (f runFlags) listenDatabaseURL() string {
	if f.listenURL != "" || f.noListen {
		return f.listenURL
	}
	return os.Getenv("LISTEN_DATABASE_URL")
}

// shutdownAbortTimeout is 0 only for the library's default.
func (f runFlags) shutdownAbortTimeout() time.Duration {
	if f.abortTimeout == 0 {
		return time.Nanosecond
	}
	return f.abortTimeout
}

// runUntilSignal runs the worker until it is done, or a signal stops it.
func runUntilSignal(ctx context.Context, worker *gworker.Worker, once bool, logger *zap.Logger) error {
	ctx, release := untilSignal(ctx, logger, time.Now, worker.Abandon)
	defer release()
	if once {
		return worker.RunOnce(ctx)
	}
	return worker.Run(ctx)
}
