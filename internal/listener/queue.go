package listener

import (
	"context"
	"sync"

	"github.com/gworker/gworker/internal/wait"
)

// Notification is one NOTIFY.
type Notification struct{ Channel, Payload string }

// Batch is what has arrived since the last one.
type Batch struct {
	// Notifications are in the order of their first arrival. Those with the same
	// channel and payload are kept once per batch, as PostgreSQL itself does within a
	// transaction.
	Notifications []Notification

	// Gap says that notifications may be missing. It is set in the first batch of every
	// connection, including the first one, and after the buffer was full. A batch may
	// have a Gap and nothing else.
	Gap bool

	// Dropped counts the notifications that the full buffer had no room for.
	Dropped int
}

// queue holds the next batch while the consumer is busy with the last one.
type queue struct {
	limit int
	ready chan struct{} // holds a token when there may be a batch

	mu   sync.Mutex
	next Batch
	seen map[Notification]struct{}
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, ready: make(chan struct{}, 1), seen: make(map[Notification]struct{})}
}

// add never blocks: the connection is read as fast as the server sends.
func (q *queue) add(n Notification) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, twice := q.seen[n]; twice {
		return
	}
	if len(q.next.Notifications) < q.limit {
		q.seen[n] = struct{}{}
		q.next.Notifications = append(q.next.Notifications, n)
	} else {
		q.next.Dropped++
		q.next.Gap = true
	}
	wait.Wake(q.ready)
}

// gap notes that notifications may be missing.
func (q *queue) gap() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next.Gap = true
	wait.Wake(q.ready)
}

// take returns the batch so far, and false if there is nothing in it.
func (q *queue) take() (Batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.next
	q.next = Batch{}
	clear(q.seen)
	return batch, batch.Gap || len(batch.Notifications) > 0
}

// consume hands batches to handle until ctx ends.
func (q *queue) consume(ctx context.Context, handle func(context.Context, Batch)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.ready:
		}
		if ctx.Err() != nil { // both were ready
			return
		}
		if batch, some := q.take(); some {
			handle(ctx, batch)
		}
	}
}
