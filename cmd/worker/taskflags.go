package main

import (
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
)

// taskFlags say where task files are and how they are run.
type taskFlags struct {
	dir           string
	env           string
	envNames      []string
	allowWritable bool
}

func (f *taskFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "tasks", "tasks", "folder of task files")
	flags.StringVar(&f.env, "task-env", "",
		"what executables inherit of the worker's environment: all, none, or listed (default all, DATABASE_URL and PGPASSWORD included, as in Node)")
	flags.StringSliceVar(&f.envNames, "task-env-names", nil,
		"the variables of --task-env listed, such as PATH,HOME,LC_* (may be repeated)")
	flags.BoolVar(&f.allowWritable, "allow-writable-tasks", false, "load task files that other users may change")
}

// load loads the tasks folder, and logs what it skipped and which links lead out of it.
func (f *taskFlags) load(logger *zap.Logger) ([]gworker.Task, error) {
	loaded, err := gworker.LoadTasksWith(f.dir, gworker.TaskFileOptions{
		Env: gworker.TaskEnv(f.env), EnvNames: f.envNames, AllowWritable: f.allowWritable,
	})
	if err != nil {
		return nil, err
	}
	for _, skipped := range loaded.Skipped {
		level := zap.DebugLevel
		if skipped.Suspicious {
			level = zap.WarnLevel
		}
		logger.Log(level, "not a task", zap.String("file", skipped.Path), zap.String("reason", skipped.Reason))
	}
	for _, link := range loaded.Links {
		logger.Warn("a link leads out of the tasks folder", zap.String("file", link.Path), zap.String("target", link.Target))
	}
	return loaded.Tasks, nil
}
