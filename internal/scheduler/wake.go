package scheduler

// wake tells whoever reads from c, which has a buffer of one, that there is something
// to look at. It never blocks: a wake-up that was not read yet serves for both.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
