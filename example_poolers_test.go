package gworker_test

import (
	"context"
	"log"
	"os"

	"github.com/gworker/gworker"
)

// Behind a proxy that pools transactions, statements are not prepared, and the
// listener and the heartbeat go past it.
func ExampleConfig_behindPgBouncer() {
	worker, err := gworker.NewWorker(gworker.Config{
		DatabaseURL:          os.Getenv("PGBOUNCER_URL"),
		ListenDatabaseURL:    os.Getenv("DATABASE_URL"),
		NoPreparedStatements: true,
		Tasks:                []gworker.Task{gworker.NewTask("send_email", sendEmail)},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := worker.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
