// Package gworker runs jobs from a queue in PostgreSQL: Graphile Worker for Go.
//
// A job is a row in the schema that the Node and Rust Graphile Workers use, so all of
// them can work on one queue side by side. A [Client] adds jobs, inside the caller's own
// transaction if wanted; any language can add them by the SQL function
// graphile_worker.add_job. A [Worker] hears of them through LISTEN/NOTIFY, claims as many
// as it has free slots, and calls their handlers.
//
//	worker, err := gworker.NewWorker(gworker.Config{
//		DatabaseURL: os.Getenv("DATABASE_URL"),
//		Tasks: []gworker.Task{gworker.NewTask("send_email", sendEmail)},
//	})
//	...
//	err = worker.Run(ctx)
//
// A [TaskDefinition] declares a task's name, the type of its payload and the defaults of its
// jobs (queue, priority, attempts, key) once, for producers and workers.
//
// # Guarantees
//
// A job runs at least once. It runs again if the worker cannot know that it was done:
// when the process dies or loses the database between the start of the handler and the
// moment its outcome is stored. An outcome is stored only while the job is locked by the
// very claim that ran it.
//
// Jobs of one named queue run one after another, whichever workers run them.
//
// # Time
//
// All times in the database are compared with the database's clock; a worker whose clock
// differs does no harm. Config.Now gives a worker a clock of its own instead.
//
// # A listener without a worker
//
// [Listener] is a reliable LISTEN for services that want notifications without a worker.
package gworker
