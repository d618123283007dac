package gworker

import (
	"context"
	"io/fs"

	"github.com/gworker/gworker/internal/event"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/scheduler"
	"github.com/gworker/gworker/internal/sqltask"
	"github.com/gworker/gworker/internal/taskfile"
)

// ErrNoTasks is returned by LoadTasks for a folder without any task file.
var ErrNoTasks = taskfile.ErrNoTasks

// TaskFiles is what a folder of task files holds.
type TaskFiles struct {
	// Tasks are the tasks, sorted by identifier.
	Tasks []Task
	// Skipped are the files and folders that are no tasks.
	Skipped []SkippedFile
}

// SkippedFile is a file or folder that LoadTasks passed over.
type SkippedFile struct {
	// Path is the folder as it was given to LoadTasks, and the path below it.
	Path string
	// Reason says why it is no task.
	Reason string
	// Suspicious means that it was probably meant to be one, as a script
	// without the execute bit; a README is not suspicious.
	Suspicious bool
}

// LoadTasks makes tasks of the files below dir. A file's path without its
// extension is the identifier: reports/daily.sql is the task "reports/daily".
//
// A file name.sql runs its statements and completes the job in one transaction,
// so its effects happen exactly once. A file with its owner's execute bit is
// started as a process for each job, as other Graphile Workers do it.
// docs/task-files.md describes both.
//
// SQL files are read now, executables whenever they run. Two files for one
// identifier are an error. A folder that does not exist is an error that wraps
// fs.ErrNotExist, one without any task an error that wraps ErrNoTasks.
func LoadTasks(dir string) (TaskFiles, error) {
	return bindFiles(taskfile.Load(dir))
}

// LoadTasksFS is LoadTasks for a file system, such as an embed.FS. Only SQL
// files can be used there: the system cannot start an executable that has no
// path on disk.
func LoadTasksFS(fsys fs.FS) (TaskFiles, error) {
	return bindFiles(taskfile.LoadFS(fsys))
}

func bindFiles(found taskfile.Result, err error) (TaskFiles, error) {
	if err != nil {
		return TaskFiles{}, err
	}
	var files TaskFiles
	for _, file := range found.Tasks {
		if file.Executable != nil {
			files.Tasks = append(files.Tasks, executableTask(file.Identifier, file.Executable))
		} else {
			files.Tasks = append(files.Tasks, sqlTask(file.Identifier, file.SQL))
		}
	}
	for _, skipped := range found.Skipped {
		files.Skipped = append(files.Skipped, SkippedFile(skipped))
	}
	return files, nil
}

func sqlTask(identifier, statements string) Task {
	runner := func(env *environment) sqltask.Runner {
		return sqltask.Runner{Pool: env.client.pool, Statements: env.client.unchecked}
	}
	return Task{
		identifier: identifier,
		locks:      true,
		raw: func(env *environment) Handler {
			r := runner(env)
			return func(ctx context.Context, raw *RawJob) error {
				if raw.run.settled {
					return errSettled
				}
				if _, err := env.locked(ctx, raw.claimed); err != nil {
					return err
				}
				switch outcome := r.Run(ctx, raw.claimedAs(raw.Payload), statements); outcome.Kind {
				case job.Settled:
					raw.run.settled = true
					return nil
				case job.Lost:
					return &lostRun{outcome.Err}
				default:
					return outcome.Err
				}
			}
		},
		direct: func(env *environment) scheduler.Handler {
			r := runner(env)
			return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
				if _, err := env.locked(ctx, claimed); err != nil {
					return job.Outcome{Kind: job.Failed, Err: err}
				}
				return r.Run(ctx, claimed, statements)
			}
		},
	}
}

func executableTask(identifier string, executable *taskfile.Executable) Task {
	run := func(ctx context.Context, env *environment, claimed *job.Claimed) error {
		return executable.Run(ctx, claimed, func(line string, isError bool) {
			env.events.Emit(event.TaskOutput{WorkerID: env.worker, Job: claimed, Line: line, IsError: isError})
		})
	}
	return Task{
		identifier: identifier,
		raw: func(env *environment) Handler {
			return func(ctx context.Context, raw *RawJob) error {
				return run(ctx, env, raw.claimedAs(raw.Payload))
			}
		},
		direct: func(env *environment) scheduler.Handler {
			return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
				return outcomeOf(run(ctx, env, claimed))
			}
		},
	}
}
