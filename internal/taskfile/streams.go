package taskfile

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/wait"
)

// streams are a process's standard streams: pipes, and the goroutines at this
// end of them. The pipes are made here rather than by exec.Cmd, whose Wait can
// be held up by a grandchild that inherited one.
type streams struct {
	theirs []*os.File // the process's ends, open until it has started
	stdin  *os.File
	outs   [2]*os.File // standard output and error
	input  io.Reader
	output func(line string, isError bool)

	mu      sync.Mutex // output is called by one goroutine at a time
	writing sync.WaitGroup
	read    chan struct{} // closed when both outs are read to their end
}

// connect makes the pipes and gives cmd its ends.
func connect(cmd *exec.Cmd, input io.Reader, output func(string, bool)) (*streams, error) {
	s := &streams{input: input, output: output, read: make(chan struct{})}
	var ends [6]*os.File
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], ends[i+1], err = os.Pipe(); err != nil {
			return nil, errors.Join(err, closeAll(ends[:i]))
		}
	}
	cmd.Stdin, s.stdin = ends[0], ends[1]
	s.outs[0], cmd.Stdout = ends[2], ends[3]
	s.outs[1], cmd.Stderr = ends[4], ends[5]
	s.theirs = []*os.File{ends[0], ends[3], ends[5]}
	return s, nil
}

// closeAll closes pipe ends. That does not fail; a second close, which does, is
// what close may ask for.
func closeAll(files []*os.File) error {
	var errs []error
	for _, file := range files {
		if err := file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// abandon is for a process that did not start.
func (s *streams) abandon() {
	_ = closeAll(append(s.theirs, s.stdin, s.outs[0], s.outs[1]))
}

// run starts the goroutines. The process has its own copies of its ends by now;
// with ours open too, the output would have no end.
func (s *streams) run() {
	_ = closeAll(s.theirs)
	s.writing.Go(func() {
		// A process need not read its input: an error means no more than that.
		_, _ = io.Copy(s.stdin, s.input)
		_ = s.stdin.Close()
	})
	var reading sync.WaitGroup
	for i, out := range s.outs {
		reading.Go(func() {
			lines := &lineSplitter{emit: func(line string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.output(line, i == 1)
			}}
			_, _ = io.Copy(lines, out) // ends at the end of output, or by close
			lines.end()
		})
	}
	go func() {
		reading.Wait()
		close(s.read)
	}()
}

// drain waits until all output is read, but not beyond ctx or the limit.
func (s *streams) drain(ctx context.Context, limit time.Duration) {
	wait.For(ctx, s.read, limit)
}

// close ends the goroutines, whoever may hold the other ends, and waits for
// them.
func (s *streams) close() {
	_ = closeAll([]*os.File{s.stdin, s.outs[0], s.outs[1]})
	s.writing.Wait()
	<-s.read
}
