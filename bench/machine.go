package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

type machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Memory float64 `json:"memoryGB"`
	System string  `json:"system"`
	Go     string  `json:"go"`
}

func lookAtMachine() machine {
	m := machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), System: runtime.GOOS, Go: runtime.Version()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if mb, err := memoryField("/proc/meminfo", "MemTotal"); err == nil {
		m.Memory = mb / 1000
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += " " + strings.TrimSpace(string(text))
	}
	return m
}

func (m machine) String() string {
	text := fmt.Sprintf("%d cores of %s", m.Cores, m.CPU)
	if m.Memory > 0 {
		text += fmt.Sprintf(", %.0f GB", m.Memory)
	}
	return text + ", " + m.System + ", " + m.Go
}
