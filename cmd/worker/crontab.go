package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/gworker/gworker"
)

const crontabUsage = "crontab file (default: the file crontab next to the tasks folder, if there is one)"

// crontabFile is the crontab of a worker.
type crontabFile struct {
	path  string
	text  string
	items []gworker.CronItem
}

// loadCrontab reads the crontab that is named, or the one next to the tasks folder,
// which may be missing.
func loadCrontab(cmd *cobra.Command, named, tasks string) (crontabFile, error) {
	file := crontabFile{path: named}
	if !cmd.Flags().Changed("crontab") {
		file.path = filepath.Join(filepath.Dir(filepath.Clean(tasks)), "crontab")
	}
	text, err := os.ReadFile(file.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("crontab"):
		return crontabFile{}, nil
	case err != nil:
		return crontabFile{}, fmt.Errorf("reading the crontab: %w", err)
	}
	file.text = string(text)
	file.items, err = gworker.ParseCrontab(file.text)
	if err != nil {
		return crontabFile{}, fmt.Errorf("the crontab %s has errors: %s", file.path, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return file, nil
}

// config is the crontab for a worker.
func (f crontabFile) config() gworker.CronConfig { return gworker.CronConfig{Crontab: f.text} }

// announce logs that the crontab is used, and which of its tasks this worker does not have:
// other workers may have them, or a name is misspelt.
func (f crontabFile) announce(tasks []gworker.Task, logger *zap.Logger) {
	if len(f.items) == 0 {
		return
	}
	logger.Info("cron adds the jobs of a crontab", zap.String("file", f.path), zap.Int("items", len(f.items)))
	for _, item := range f.items {
		if !slices.ContainsFunc(tasks, func(t gworker.Task) bool { return t.Identifier() == item.Task }) {
			logger.Warn("the crontab adds jobs of a task that this worker does not run",
				zap.String("task", item.Task), zap.String("entry", item.Identifier))
		}
	}
}

func newCrontabCommand(shared *sharedFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "crontab",
		Short: "Work with crontab files",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCrontabCheckCommand(shared))
	return cmd
}
