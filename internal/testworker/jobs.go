package testworker

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"context"

	"github.com/gworker/gworker"
)

// Nothing is a handler that completes its job.
func Nothing(context.Context, *gworker.RawJob) error { return nil }

// Fail returns a handler that returns err.
func Fail(err error) func(context.Context, *gworker.RawJob) error {
	return func(context.Context, *gworker.RawJob) error { return err }
}

// AddEach adds jobs and returns their ids by the names of their tasks.
func AddEach(t *testing.T, client *gworker.Client, specs ...gworker.JobSpec) map[string]int64 {
	t.Helper()
	jobs, err := client.AddJobs(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int64{}
	for _, job := range jobs {
		ids[job.Task] = job.ID
	}
	return ids
}

// SQLTasks makes tasks of SQL texts.
func SQLTasks(t *testing.T, texts map[string]string) []gworker.Task {
	t.Helper()
	files := fstest.MapFS{}
	for name, text := range texts {
		files[name+".sql"] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	loaded, err := gworker.LoadTasksFS(files)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Tasks
}

// WantFieldError checks that err is a FieldError about the field and says so.
func WantFieldError(t *testing.T, err error, field, says string) {
	t.Helper()
	var fieldError *gworker.FieldError
	if !errors.As(err, &fieldError) {
		t.Errorf("%s: error is %v, want a FieldError", field, err)
		return
	}
	if fieldError.Field != field || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), field) {
		t.Errorf("error is %q, want one about %s that says %q", err, field, says)
	}
}
