//go:build !unix

package cargo

import "sync"

var building sync.Mutex

// lock waits for other calls in this process. Processes are not kept apart here: start
// none together until the programs are built.
func lock(string) (unlock func(), err error) {
	building.Lock()
	return building.Unlock, nil
}
