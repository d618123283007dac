package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ticksPerSecond is Linux's USER_HZ, which is 100 on every platform that Go has.
const ticksPerSecond = 100

var errNoProc = errors.New("this system has no /proc")

// stat is what /proc says of a process.
type stat struct {
	pid, parent int
	own, reaped float64 // CPU seconds; of children that have ended
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, errors.Join(errNoProc, err)
	}
	// The name, in parentheses, may hold anything.
	after := text[bytes.LastIndexByte(text, ')')+1:]
	fields := strings.Fields(string(after))
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("/proc/%d/stat is cut off", pid)
	}
	number := func(i int) float64 { n, _ := strconv.ParseFloat(fields[i], 64); return n }
	return stat{
		pid: pid, parent: int(number(1)),
		own: (number(11) + number(12)) / ticksPerSecond, reaped: (number(13) + number(14)) / ticksPerSecond,
	}, nil
}

// family is a process and its children. A child that ends meanwhile is in both
// the list and the parent's sum, or in none: then it is read again.
func family(pid int) ([]stat, error) {
	for {
		parent, err := readStat(pid)
		if err != nil {
			return nil, err
		}
		all := []stat{parent}
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			child, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				continue
			}
			if s, err := readStat(child); err == nil && s.parent == pid {
				all = append(all, s)
			}
		}
		after, err := readStat(pid)
		if err != nil {
			return nil, err
		}
		if after.reaped == parent.reaped {
			return all, nil
		}
	}
}

// serverCPU is what all processes of the server have used, also those that have
// ended.
func serverCPU(pid int) (float64, error) {
	all, err := family(pid)
	if err != nil {
		return 0, err
	}
	seconds := all[0].reaped
	for _, s := range all {
		seconds += s.own
	}
	return seconds, nil
}

// memoryField reads a line such as "VmHWM:   123 kB", in MB.
func memoryField(path, name string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, errors.Join(errNoProc, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// peakMemory is the most that a process has had resident, in MB.
func peakMemory(pid int) (float64, error) {
	return memoryField(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
}

// A sampler finds the peak of the server's memory: the sum over its processes,
// with shared pages counted once.
type sampler struct {
	stop, done chan struct{}
	once       sync.Once
	peak       float64
}

const sampleEvery = 500 * time.Millisecond

func sampleServer(pid int) *sampler {
	s := &sampler{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for {
			s.peak = max(s.peak, serverMemory(pid))
			select {
			case <-ticker.C:
			case <-s.stop:
				return
			}
		}
	}()
	return s
}

func (s *sampler) end() float64 {
	s.once.Do(func() { close(s.stop) })
	<-s.done
	return s.peak
}

func serverMemory(pid int) float64 {
	all, err := family(pid)
	if err != nil {
		return 0
	}
	sum := 0.0
	for _, s := range all {
		mb, err := memoryField(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid), "Pss")
		if err == nil { // it has not ended meanwhile
			sum += mb
		}
	}
	return sum
}
