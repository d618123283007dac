package taskfile

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/gworker/gworker/internal/job"
)

// runAtLayout is JavaScript's toISOString; the time must be in UTC.
const runAtLayout = "2006-01-02T15:04:05.000Z"

// Names of the variables by which a process gets its job. They are the Node
// worker's, so that one folder serves both.
const (
	envFormat      = "GRAPHILE_WORKER_PAYLOAD_FORMAT"
	envTask        = "GRAPHILE_WORKER_TASK_IDENTIFIER"
	envID          = "GRAPHILE_WORKER_JOB_ID"
	envKey         = "GRAPHILE_WORKER_JOB_KEY"
	envAttempts    = "GRAPHILE_WORKER_JOB_ATTEMPTS"
	envMaxAttempts = "GRAPHILE_WORKER_JOB_MAX_ATTEMPTS"
	envPriority    = "GRAPHILE_WORKER_JOB_PRIORITY"
	envRunAt       = "GRAPHILE_WORKER_JOB_RUN_AT"
)

// Environment is what processes inherit of the worker's environment. The zero value is
// everything, as the Node worker does it.
type Environment struct {
	// Listed leaves out all but Names.
	Listed bool
	// Names are names of variables; one that ends in * stands for all that begin so.
	Names []string
}

// inherits reports whether a process gets a variable, which is NAME=VALUE.
func (e Environment) inherits(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	if name == envKey {
		// A worker that is itself a job's process has a key in its environment; it
		// must not pass for the key of a job that has none.
		return false
	}
	return !e.Listed || slices.ContainsFunc(e.Names, func(listed string) bool {
		prefix, isPrefix := strings.CutSuffix(listed, "*")
		return name == listed || isPrefix && strings.HasPrefix(name, prefix)
	})
}

// forJob is what a process inherits of parent, with the job's variables.
func (e Environment) forJob(parent []string, task string, j *job.Claimed) []string {
	env := slices.DeleteFunc(slices.Clone(parent), func(variable string) bool { return !e.inherits(variable) })
	// Of a name given twice the process gets the last value.
	env = append(env,
		envFormat+"=json",
		envTask+"="+task,
		envID+"="+strconv.FormatInt(j.ID, 10),
		envAttempts+"="+strconv.Itoa(j.Attempts),
		envMaxAttempts+"="+strconv.Itoa(j.MaxAttempts),
		envPriority+"="+strconv.Itoa(j.Priority),
		envRunAt+"="+j.RunAt.UTC().Format(runAtLayout),
	)
	if j.Key != "" {
		env = append(env, envKey+"="+j.Key)
	}
	return env
}

// stdin is what the process reads: the payload as stored, wrapped without a
// copy.
func stdin(j *job.Claimed) io.Reader {
	return io.MultiReader(strings.NewReader(`{"payload":`), bytes.NewReader(j.Payload), strings.NewReader("}"))
}
