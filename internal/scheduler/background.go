package scheduler

// background is what is done while the loop goes on: polls, and looks at locks.
type background struct {
	done  chan func() // what is to be done in the loop when it is over
	count int
}

func newBackground() background { return background{done: make(chan func())} }

// run has something done while the loop goes on. What it returns is called by the loop.
func (b *background) run(work func() (then func())) {
	b.count++
	go func() { b.done <- work() }()
}

func (b *background) ended(then func()) {
	b.count--
	then()
}

// wait waits for all of it, once the loop has ended.
func (b *background) wait() {
	for b.count > 0 {
		b.ended(<-b.done)
	}
}
