package gworker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/gworker/gworker/event"
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
	// Links are the symbolic links that lead out of the folder to tasks.
	Links []TaskLink
}

// TaskLink is a symbolic link in a tasks folder to a task file, or a folder of them,
// outside of it.
type TaskLink struct {
	// Path is the folder as it was given to LoadTasks, and the path below it.
	Path string
	// Target is where the link leads to, an absolute path without links.
	Target string
}

// TaskFileOptions are how task files are loaded and run. The zero value is the default.
type TaskFileOptions struct {
	// Env is which environment variables of the worker's own executables inherit.
	// Empty means TaskEnvAll, or TaskEnvListed where EnvNames has names. The variables
	// of the job, GRAPHILE_WORKER_*, are there in any case.
	Env TaskEnv
	// EnvNames are the variables of TaskEnvListed. A name that ends in * stands for
	// all that begin so.
	EnvNames []string

	// AllowWritable loads a folder whose files other users may change. By default
	// that is a *WritableTasksError.
	AllowWritable bool
}

// TaskEnv is which environment variables executables inherit.
type TaskEnv string

const (
	// TaskEnvAll is everything, passwords in DATABASE_URL and PGPASSWORD included,
	// as the Node worker does it.
	TaskEnvAll TaskEnv = "all"
	// TaskEnvListed is what TaskFileOptions.EnvNames lists.
	TaskEnvListed TaskEnv = "listed"
	// TaskEnvNone is nothing, not even PATH.
	TaskEnvNone TaskEnv = "none"
)

// WritableTasksError is the error of LoadTasks for a folder in which users other than
// the program's own and root may change what runs: the folder, a folder on the way to
// it, a task file, a folder of them, or the target of a link belongs to such a user, or
// may be written by its group or by everybody. A group that has no other member than
// the owner, as many systems give one to each user, counts as the owner, unless that is
// root. A folder with the sticky bit, such as /tmp, may be on the way.
//
// On systems without Unix rights nothing is looked at.
type WritableTasksError struct {
	// Dir is the folder as it was given to LoadTasks.
	Dir string
	// Found are sentences about who may change what, one for each place.
	Found []string
}

// Error names the file and says what helps.
func (e *WritableTasksError) Error() string { return (*taskfile.WritableError)(e).Error() }

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
// fs.ErrNotExist, one without any task an error that wraps ErrNoTasks, and one in
// which other users may change what runs is a *WritableTasksError.
//
// Executables inherit the environment of the program, as those of the Node worker do:
// LoadTasksWith can leave that out.
func LoadTasks(dir string) (TaskFiles, error) {
	return LoadTasksWith(dir, TaskFileOptions{})
}

// LoadTasksWith is LoadTasks with options. Errors of the options are a *FieldError.
func LoadTasksWith(dir string, options TaskFileOptions) (TaskFiles, error) {
	environment, err := options.environment()
	if err != nil {
		return TaskFiles{}, fmt.Errorf("loading task files: %w", err)
	}
	return bindFiles(taskfile.Load(dir, taskfile.Options{Environment: environment, AllowWritable: options.AllowWritable}))
}

func (o TaskFileOptions) environment() (taskfile.Environment, error) {
	for i, name := range o.EnvNames {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(strings.TrimSuffix(name, "*"), "*") {
			return taskfile.Environment{}, problem(fmt.Sprintf("TaskFileOptions.EnvNames[%d]", i),
				"is %q: give a variable's name, or the beginning of names and *", name)
		}
	}
	mode := o.Env
	if mode == "" {
		mode = TaskEnvAll
		if len(o.EnvNames) > 0 {
			mode = TaskEnvListed
		}
	}
	switch {
	case mode == TaskEnvListed && len(o.EnvNames) == 0:
		return taskfile.Environment{}, problem("TaskFileOptions.EnvNames", "is empty: list the variables that tasks inherit")
	case mode != TaskEnvListed && len(o.EnvNames) > 0:
		return taskfile.Environment{}, problem("TaskFileOptions.EnvNames", "is given, but TaskFileOptions.Env is %q and not %q", mode, TaskEnvListed)
	case mode == TaskEnvAll:
		return taskfile.Environment{}, nil
	case mode == TaskEnvListed, mode == TaskEnvNone:
		return taskfile.Environment{Listed: true, Names: slices.Clone(o.EnvNames)}, nil
	}
	return taskfile.Environment{}, problem("TaskFileOptions.Env", "is %q: it can be all, listed or none", mode)
}

// LoadTasksFS is LoadTasks for a file system, such as an embed.FS. Only SQL
// files can be used there: the system cannot start an executable that has no
// path on disk.
func LoadTasksFS(fsys fs.FS) (TaskFiles, error) {
	return bindFiles(taskfile.LoadFS(fsys))
}

func bindFiles(found taskfile.Result, err error) (TaskFiles, error) {
	var writable *taskfile.WritableError
	if errors.As(err, &writable) {
		return TaskFiles{}, (*WritableTasksError)(writable)
	}
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
	for _, link := range found.Links {
		files.Links = append(files.Links, TaskLink(link))
	}
	return files, nil
}

func sqlTask(identifier, statements string) Task {
	runner := func(env *environment) sqltask.Runner {
		config := env.client.pool.Config()
		return sqltask.Runner{
			Pool: env.client.pool, Statements: env.client.unchecked, Completer: env.completer,
			Hooks: config.AfterConnect != nil || config.ConnConfig.AfterConnect != nil,
		}
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
			env.events.Emit(event.TaskOutput{WorkerID: env.worker, Job: (*event.Job)(&claimed.Row), Line: line, IsError: isError})
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
