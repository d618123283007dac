package gworker_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/gworker/gworker"
)

// A cache is emptied when others change what it holds. See examples/listener
// for a whole program.
func ExampleListener() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	listener, err := gworker.NewListener(gworker.ListenerConfig{
		DatabaseURL: os.Getenv("DATABASE_URL"),
		Channels:    []string{"article_changed"},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = listener.Run(ctx, func(_ context.Context, batch gworker.ListenerBatch) {
		if batch.Gap { // anything may have changed unheard
			fmt.Println("forget everything")
			return
		}
		for _, n := range batch.Notifications {
			fmt.Println("forget article", n.Payload)
		}
	})
	if err != nil { // the end of ctx is none
		log.Print(err)
	}
}
