//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestTaskEnv(t *testing.T) {
	database := testdb.Migrated(t)
	tasks := tasksDir(t, map[string]string{"see": "#!/bin/sh\necho \"url=$DATABASE_URL secret=$GWORKER_TEST_SECRET\"\n"})
	t.Setenv("GWORKER_TEST_SECRET", "s3")
	for _, c := range []struct {
		flags  []string
		status int
		says   string
	}{
		{nil, 0, "url= secret=s3"},
		{[]string{"--task-env", "all"}, 0, "url= secret=s3"},
		{[]string{"--task-env", "none"}, 0, "url= secret="},
		{[]string{"--task-env", "listed", "--task-env-names", "PATH,GWORKER_*"}, 0, "url= secret=s3"},
		{[]string{"--task-env-names", "PATH"}, 0, "url= secret="},
		{[]string{"--task-env", "some"}, 2, `--task-env is "some": it can be all, listed or none`},
		{[]string{"--task-env", "listed"}, 2, "--task-env-names is empty"},
		{[]string{"--task-env", "none", "--task-env-names", "X"}, 2, "--task-env-names is given"},
		{[]string{"--task-env-names", "A=b"}, 2, `--task-env-names is "A=b"`},
	} {
		worker(t, "", "add", "see", "-c", database).want(t, 0)
		r := worker(t, "", append([]string{"run", "--once", "--tasks", tasks, "-c", database}, c.flags...)...)
		r.want(t, c.status, c.says)
		if c.says == "url= secret=" {
			r.lacks(t, "s3")
		}
	}
}

func TestWritableTasksAreRefused(t *testing.T) {
	database := testdb.Migrated(t)
	dir := t.TempDir()
	tasks := filepath.Join(dir, "tasks")
	for _, folder := range []string{tasks, filepath.Join(dir, "elsewhere")} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(dir, "elsewhere", "task")
	if err := os.WriteFile(target, []byte("#!/bin/sh\necho it ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(tasks, "x")); err != nil {
		t.Fatal(err)
	}
	run := func(flags ...string) result {
		t.Helper()
		worker(t, "", "add", "x", "-c", database).want(t, 0)
		return worker(t, "", append([]string{"run", "--once", "--tasks", tasks, "-c", database}, flags...)...)
	}
	run().want(t, 0, "it ran", "a link leads out of the tasks folder", target)
	if err := os.Chmod(filepath.Dir(target), 0o777); err != nil {
		t.Fatal(err)
	}
	r := run()
	r.want(t, 1, "other users can change the task files of", filepath.Dir(target)+" can be written by everybody (mode 0777)",
		"chmod go-w", "--allow-writable-tasks")
	r.lacks(t, "it ran")
	run("--allow-writable-tasks").want(t, 0, "it ran")
	worker(t, "", "cleanup", "--dry-run", "--tasks", tasks, "-c", database).want(t, 0) // runs nothing
}
