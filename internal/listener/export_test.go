package listener

import (
	"context"
	"time"
)

// SetTime gives a listener another clock, before it runs.
func (l *Listener) SetTime(now func() time.Time, sleep func(ctx context.Context, d time.Duration) error) {
	l.now, l.sleep = now, sleep
}

// SetAnswerTimeout bounds LISTEN and pings.
func (l *Listener) SetAnswerTimeout(d time.Duration) { l.answer = d }
