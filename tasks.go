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
	// Skipped are the files and folders that are not tasks.
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
	// Env says which of the worker's environment variables executables inherit. Empty
	// means TaskEnvAll, or TaskEnvListed if EnvNames has names. The variables of the job,
	// GRAPHILE_WORKER_*, are always set.
	Env TaskEnv
	// EnvNames are the variables of TaskEnvListed. A name that ends in * matches all
	// names with that prefix.
	EnvNames []string

	// AllowWritable allows a folder whose files other users may change. By default that
	// is a *WritableTasksError.
	AllowWritable bool
}

// TaskEnv is which environment variables executables inherit.
type TaskEnv string

const (
	// TaskEnvAll is all variables, including passwords in DATABASE_URL and PGPASSWORD, as
	// in Node's worker.
	TaskEnvAll TaskEnv = "all"
	// TaskEnvListed is the variables of TaskFileOptions.EnvNames.
	TaskEnvListed TaskEnv = "listed"
	// TaskEnvNone is no variables, not even PATH.
	TaskEnvNone TaskEnv = "none"
)

// WritableTasksError is the error of LoadTasks for a folder in which users other than the
// program's own and root can change what runs: such a user owns the folder, one of its parent
// folders, a task file, a subfolder, or the target of a link; or their group or everyone may
// write it. A group whose only member is the owner, as many systems make one for each user,
// counts as the owner, unless that is root. A parent folder with the sticky bit, such as
// /tmp, is allowed.
//
// On systems without Unix rights nothing is checked.
type WritableTasksError struct {
	// Dir is the folder as it was given to LoadTasks.
	Dir string
	// Found says who can change what, a sentence for each place.
	Found []string
}

// Error names the file and says what helps.
func (e *WritableTasksError) Error() string { return (*taskfile.WritableError)(e).Error() }

// SkippedFile is a file or folder that LoadTasks has skipped.
type SkippedFile struct {
	// Path is the folder as it was given to LoadTasks, and the path below it.
	Path string
	// Reason says why it is not a task.
	Reason string
	// Suspicious means that it was probably meant to be a task, like a script without the
	// execute bit; a README is not suspicious.
	Suspicious bool
}

// LoadTasks makes tasks of the files below dir. A file's path without its
// extension is the identifier: reports/daily.sql is the task "reports/daily".
//
// The statements of a file name.sql run in one transaction that also completes the job, so
// their effects happen exactly once. A file with its owner's execute bit is started as a
// process for each job, as by other Graphile Workers. docs/task-files.md describes both.
//
// SQL files are read now, executables whenever they run. Two files for one identifier are an
// error. A folder that does not exist is an error that wraps fs.ErrNotExist, a folder without
// tasks an error that wraps ErrNoTasks, and a folder in which other users can change what
// runs a *WritableTasksError.
//
// Executables inherit the environment of the program, as in Node's worker; LoadTasksWith can
// restrict that.
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
