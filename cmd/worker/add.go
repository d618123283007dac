package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/internal/job"
	"github.com/gworker/gworker/internal/terminal"
)

// addFlags are the fields of a job spec as flags.
type addFlags struct {
	payload     string
	payloadFile string
	queue       string
	runAt       string
	maxAttempts int
	key         string
	keyMode     string
	priority    int
	flags       []string
	uniqueFor   time.Duration
	uniqueKey   string
	uniqueScope string
	json        bool
}

func newAddCommand(shared *sharedFlags) *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use:   "add TASK [-]",
		Short: "Add a job",
		Long: `add puts one job into the queue and prints it. The payload is JSON, from
--payload, from --payload-file, or from standard input with "-" in place of
either; without any of them it is {}.`,
		Example: `  worker add send_email --payload '{"to":"ada@example.com"}'
  worker add report --queue reports --run-at 2027-01-01T06:00:00Z --key yearly
  worker add cleanup --run-at 10m
  worker add webhook --unique-for 24h --unique-key "$EVENT_ID" -
  generate | worker add import -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{command: cmd.CommandPath(), err: errors.New("name the task of the job")}
			}
			if len(args) > 2 || len(args) == 2 && args[1] != "-" {
				return usageError{command: cmd.CommandPath(), err: fmt.Errorf("unexpected argument %q", args[len(args)-1])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.keyMode != "" && f.key == "" {
				return usageError{command: cmd.CommandPath(), err: errors.New("--key-mode says what happens to a job with the same key: give --key, too")}
			}
			if f.uniqueFor == 0 && (f.uniqueKey != "" || f.uniqueScope != "") {
				return usageError{command: cmd.CommandPath(), err: errors.New("--unique-key and --unique-scope say of which jobs one is added: give --unique-for, too")}
			}
			spec, err := f.spec(args, shared.std.in)
			if err != nil {
				return usageError{command: cmd.CommandPath(), err: err}
			}
			client, err := shared.client()
			if err != nil {
				return err
			}
			defer client.Close()
			job, err := client.AddJob(cmd.Context(), spec)
			if err != nil {
				return err
			}
			if err := f.print(shared.std.out, job); err != nil {
				return fmt.Errorf("job %d is in the queue, but could not be printed: %w", job.ID, err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.payload, "payload", "", "payload as JSON; - reads standard input")
	flags.StringVar(&f.payloadFile, "payload-file", "", "file that holds the payload; - reads standard input")
	flags.StringVar(&f.queue, "queue", "", "named queue, whose jobs run one after another")
	flags.StringVar(&f.runAt, "run-at", "", "when to run: a time (2027-01-01T06:00:00Z), a date, or a duration from now (10m, 1d)")
	flags.IntVar(&f.maxAttempts, "max-attempts", 0, "how often to try before the job stays failed (default 25)")
	flags.StringVar(&f.key, "key", "", "job key, by which a later add replaces this job")
	flags.StringVar(&f.keyMode, "key-mode", "", "replace, preserve_run_at or unsafe_dedupe (default replace)")
	flags.IntVar(&f.priority, "priority", 0, "lower numbers run first")
	listVar(cmd.Flags(), &f.flags, "flag", "flag of the job")
	flags.Var(newDuration(&f.uniqueFor, 0), "unique-for", "add nothing if the same job was added less than this ago (24h, 7d), also if it is done")
	flags.StringVar(&f.uniqueKey, "unique-key", "", "which jobs are the same for --unique-for (default those with the same payload)")
	flags.StringVar(&f.uniqueScope, "unique-scope", "", "task: among the jobs of the task; all: among those of all tasks (default task)")
	flags.BoolVar(&f.json, "json", false, "print the stored job as JSON, and whether it was added")
	complete(cmd, "key-mode", words(string(gworker.KeyReplace), string(gworker.KeyPreserveRunAt), string(gworker.KeyUnsafeDedupe)))
	complete(cmd, "unique-scope", words(string(gworker.UniqueInTask), string(gworker.UniqueInAll)))
	complete(cmd, "queue", completeQueues(shared))
	cmd.ValidArgsFunction = completeTasks(shared)
	return cmd
}

func (f addFlags) spec(args []string, stdin io.Reader) (gworker.JobSpec, error) {
	payload, err := f.readPayload(len(args) == 2, stdin)
	if err != nil {
		return gworker.JobSpec{}, err
	}
	runAt, err := parseTime("--run-at", f.runAt, time.Now())
	if err != nil {
		return gworker.JobSpec{}, err
	}
	return gworker.JobSpec{
		Task: args[0], Payload: payload, Queue: f.queue, RunAt: runAt, MaxAttempts: f.maxAttempts,
		Key: f.key, KeyMode: gworker.KeyMode(f.keyMode), Priority: f.priority, Flags: f.flags,
		UniqueFor: f.uniqueFor, UniqueKey: f.uniqueKey, UniqueScope: gworker.UniqueScope(f.uniqueScope),
	}, nil
}

// readPayload reads the payload from where the flags say.
func (f addFlags) readPayload(dash bool, stdin io.Reader) (json.RawMessage, error) {
	named := 0
	for _, given := range []bool{dash, f.payload != "", f.payloadFile != ""} {
		if given {
			named++
		}
	}
	if named > 1 {
		return nil, errors.New("give the payload once: --payload, --payload-file or -")
	}
	var text []byte
	var err error
	switch {
	case dash || f.payload == "-" || f.payloadFile == "-":
		if text, err = io.ReadAll(stdin); err != nil {
			return nil, fmt.Errorf("reading the payload from standard input: %w", err)
		}
	case f.payloadFile != "":
		if text, err = os.ReadFile(f.payloadFile); err != nil {
			return nil, fmt.Errorf("reading the payload: %w", err)
		}
	case f.payload != "":
		text = []byte(f.payload)
	default:
		return nil, nil
	}
	if wrong := job.PayloadProblem(text); wrong != "" {
		return nil, errors.New("the payload " + wrong)
	}
	return text, nil
}

func (f addFlags) print(out io.Writer, job *gworker.JobRow) error {
	if f.json {
		encoder := json.NewEncoder(out)
		return encoder.Encode(addedJSON{jobJSON: jsonJob(job), Added: job.Added(), Duplicate: job.Duplicate})
	}
	if d := job.Duplicate; d != nil {
		_, err := terminal.Fprintf(out, "nothing added: job %d of task %s was added at %s and is %s; unique until %s\n",
			job.ID, job.Task, d.AddedAt.Format(time.RFC3339), string(d.State), d.ExpiresAt.Format(time.RFC3339))
		return err
	}
	did := "added"
	switch {
	case job.Added():
	case gworker.KeyMode(f.keyMode) == gworker.KeyUnsafeDedupe:
		did = "kept the present"
	default:
		did = "replaced"
	}
	_, err := terminal.Fprintf(out, "%s job %d: task %s, runs at %s, %d attempts\n",
		did, job.ID, job.Task, job.RunAt.Format(time.RFC3339), job.MaxAttempts)
	return err
}

// addedJSON is the result of adding a job. Added is false if a job with its key existed, or
// if the same was added before; then Duplicate says what has become of that.
type addedJSON struct {
	jobJSON
	Added     bool               `json:"added"`
	Duplicate *gworker.Duplicate `json:"duplicate,omitempty"`
}

// jobJSON is a job as the binary prints it. The names are those of the columns;
// docs/administration.md says when the optional fields are present.
type jobJSON struct {
	ID            int64           `json:"id"`
	State         string          `json:"state,omitempty"`
	Task          string          `json:"task_identifier"`
	Queue         string          `json:"queue_name,omitempty"`
	Payload       json.RawMessage `json:"payload,omitempty"`
	Priority      int             `json:"priority"`
	RunAt         time.Time       `json:"run_at"`
	Attempts      int             `json:"attempts"`
	MaxAttempts   int             `json:"max_attempts"`
	LastError     string          `json:"last_error,omitempty"`
	CreatedAt     time.Time       `json:"created_at"`
	UpdatedAt     time.Time       `json:"updated_at"`
	Key           string          `json:"key,omitempty"`
	Revision      int             `json:"revision"`
	Flags         []string        `json:"flags,omitempty"`
	LockedAt      time.Time       `json:"locked_at,omitzero"`
	LockedBy      string          `json:"locked_by,omitempty"`
	QueueLockedBy string          `json:"queue_locked_by,omitempty"`
}

func jsonJob(j *gworker.JobRow) jobJSON {
	return jobJSON{
		ID: j.ID, Task: j.Task, Queue: j.Queue, Payload: j.Payload, Priority: j.Priority, RunAt: j.RunAt,
		Attempts: j.Attempts, MaxAttempts: j.MaxAttempts, LastError: j.LastError, CreatedAt: j.CreatedAt,
		UpdatedAt: j.UpdatedAt, Key: j.Key, Revision: j.Revision, Flags: j.Flags,
		LockedAt: j.LockedAt, LockedBy: j.LockedBy,
	}
}
