package cargo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func program(text string) Program {
	return Program{Name: "gworker-cargo-test", Major: 1, Minor: 60, Sources: fstest.MapFS{
		"Cargo.toml":  {Data: []byte("[package]\nname = \"gworker-cargo-test\"\nversion = \"0.0.0\"\nedition = \"2021\"\n")},
		"Cargo.lock":  {Data: []byte("version = 3\n\n[[package]]\nname = \"gworker-cargo-test\"\nversion = \"0.0.0\"\n")},
		"src/main.rs": {Data: []byte(text)},
	}}
}

// alone gives a test a cache folder of its own.
func alone(t *testing.T) {
	t.Setenv(CacheEnv, t.TempDir())
	if _, err := program("").Find(); err != nil {
		t.Skip(err)
	}
}

func TestBuiltProgramIsOfItsSources(t *testing.T) {
	alone(t)
	for _, word := range []string{"one", "two", "one"} {
		p := program(`fn main() { println!("` + word + `") }`)
		path, err := p.Build()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(path).Output(); err != nil || string(out) != word+"\n" {
			t.Errorf("the program of %q says %q, %v", word, out, err)
		}
		if again, there, err := p.Built(); again != path || !there || err != nil {
			t.Errorf("it is looked for as %s (%t, %v) and was built as %s", again, there, err, path)
		}
	}
}

// One program's sources may differ between two builds at the same time, and its
// settings between two that have the same.
func TestBuildsAtOnceAreOfTheirSourcesAndSettings(t *testing.T) {
	alone(t)
	var building sync.WaitGroup
	for _, word := range []string{"one", "two"} {
		for _, profile := range []string{"", "dev"} {
			building.Go(func() {
				p := program(`fn main() { println!("` + word + ` {}", cfg!(debug_assertions)) }`)
				p.Profile = profile
				path, err := p.Build()
				if err != nil {
					t.Error(err)
					return
				}
				want := fmt.Sprintln(word, profile == "dev")
				if out, err := exec.Command(path).Output(); err != nil || string(out) != want {
					t.Errorf("it says %q, %v, want %q", out, err, want)
				}
			})
		}
	}
	building.Wait()
}

// A package may be in a folder of its sources, and build on what is next to it.
func TestProgramOfAFolder(t *testing.T) {
	t.Setenv(CacheEnv, t.TempDir())
	p := program("fn main() {}")
	if _, err := p.Find(); err != nil {
		t.Skip(err)
	}
	files := p.Sources.(fstest.MapFS)
	toml := string(files["Cargo.toml"].Data) + "[[bin]]\nname = \"gworker-cargo-test\"\npath = \"../src/main.rs\"\n"
	files["other/Cargo.toml"], files["other/Cargo.lock"] = &fstest.MapFile{Data: []byte(toml)}, files["Cargo.lock"]
	p.Folder = "other"
	path, err := p.Build()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(path, os.Getenv(CacheEnv)) {
		t.Errorf("it was built to %s, and not below %s", path, os.Getenv(CacheEnv))
	}
	top := p
	top.Folder = ""
	if _, there, err := top.Built(); there || err != nil {
		t.Errorf("the package above is there, too: %t, %v", there, err)
	}
}

func TestFailedBuildLeavesNothingAndSaysWhyInALine(t *testing.T) {
	alone(t)
	p := program(`fn main() { nonsense }`)
	_, err := p.Build()
	if err == nil || !strings.Contains(err.Error(), "cannot find value `nonsense`") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
	path, there, err := p.Built()
	if there || err != nil {
		t.Errorf("it is there: %t, %v", there, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(path))), "building-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

func TestMissingAndOldCargoAreNamed(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("CARGO_HOME", "")
	t.Setenv(CacheEnv, t.TempDir())
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if _, err := program("").Build(); err == nil || !strings.HasPrefix(err.Error(), "cargo is not installed") {
		t.Errorf("without cargo: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "cargo"), []byte("#!/bin/sh\necho 'cargo 1.59.0 (abc 2022-01-01)'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := program("").Build(); err == nil || !strings.Contains(err.Error(), "is of version 1.59, and gworker-cargo-test needs 1.60") {
		t.Errorf("with an old cargo: %v", err)
	}
}
