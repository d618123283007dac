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
		task := Task{identifier: file.Identifier}
		if file.Executable != nil {
			task.bind = bindExecutable(file.Executable)
		} else {
			task.bind = bindSQL(file.SQL)
		}
		files.Tasks = append(files.Tasks, task)
	}
	for _, skipped := range found.Skipped {
		files.Skipped = append(files.Skipped, SkippedFile(skipped))
	}
	return files, nil
}

func bindSQL(statements string) func(*environment) scheduler.Handler {
	return func(env *environment) scheduler.Handler {
		runner := sqltask.Runner{Pool: env.client.pool, Statements: env.client.statements}
		return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
			return runner.Run(ctx, claimed, statements)
		}
	}
}

func bindExecutable(executable *taskfile.Executable) func(*environment) scheduler.Handler {
	return func(env *environment) scheduler.Handler {
		return func(ctx context.Context, claimed *job.Claimed) job.Outcome {
			err := executable.Run(ctx, claimed, func(line string, isError bool) {
				env.events.Emit(event.TaskOutput{WorkerID: env.worker, Job: claimed, Line: line, IsError: isError})
			})
			if err != nil {
				return job.Outcome{Kind: job.Failed, Err: err}
			}
			return job.Outcome{Kind: job.Completed}
		}
	}
}
