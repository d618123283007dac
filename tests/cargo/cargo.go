// Package cargo builds Rust programs of this repository, for tests and
// benchmarks that need real Rust workers.
//
// What comes in is a package's sources with a Cargo.lock; what goes out is a
// program in a cache folder outside the tree. The one thing not to break: the
// program is complete or it is not there, and it is the one of exactly these
// sources.
package cargo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// buildTimeout is for a cold cache on a slow and busy machine.
const buildTimeout = 20 * time.Minute

// CacheEnv names the environment variable with the folder to build in, in place of
// gworker/cargo in the user's cache folder.
const CacheEnv = "GWORKER_CARGO_CACHE"

// versionTimeout is for a cargo that first looks for its toolchain.
const versionTimeout = 30 * time.Second

// A Program is a binary of a Cargo package.
type Program struct {
	// Name is the binary's.
	Name string
	// Sources holds the package's Cargo.toml and Cargo.lock, and what they name.
	Sources fs.FS
	// Folder is where the package is in Sources; empty at their top.
	Folder string
	// Profile is Cargo's, such as dev, which compiles quicker; empty means release.
	Profile string
	// Major and Minor are the oldest version of cargo that can build it.
	Major, Minor int
}

// Find returns the path of cargo, from PATH or from where rustup puts it, and an
// error that says in one line why it cannot be used.
func (p Program) Find() (string, error) {
	path, err := exec.LookPath("cargo")
	if err != nil {
		home := os.Getenv("CARGO_HOME")
		if user, err := os.UserHomeDir(); home == "" && err == nil {
			home = filepath.Join(user, ".cargo")
		}
		if path, err = exec.LookPath(filepath.Join(home, "bin", "cargo")); err != nil {
			return "", errors.New("cargo is not installed: it is neither in PATH nor in ~/.cargo/bin")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = append(os.Environ(), searchPath(path))
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", path, err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "cargo %d.%d.", &major, &minor); err != nil {
		return "", fmt.Errorf("reading the version of %s in %.40q: %w", path, out, err)
	}
	if major < p.Major || major == p.Major && minor < p.Minor {
		return "", fmt.Errorf("%s is of version %d.%d, and %s needs %d.%d", path, major, minor, p.Name, p.Major, p.Minor)
	}
	return path, nil
}

// Built returns where the program is in the cache, and whether it is there.
func (p Program) Built() (path string, there bool, err error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", false, err
	}
	sum, err := p.sum()
	if err != nil {
		return "", false, err
	}
	path = filepath.Join(cache, p.Name+"-"+sum, "bin", p.Name)
	_, err = os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", false, fmt.Errorf("looking for a built program: %w", err)
	}
	return path, err == nil, nil
}

// Build returns the program's path, and builds it unless it is there. It is safe for
// concurrent use, also by several processes, which build one after the other.
func (p Program) Build() (string, error) {
	path, there, err := p.Built()
	if err != nil || there {
		return path, err
	}
	cargo, err := p.Find()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(filepath.Dir(path))
	cache := filepath.Dir(dir)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("making the cache folder: %w", err)
	}
	// Cargo takes two programs of one name for the same, wherever their sources are, and
	// those for built that are older than its last build. So no sources are written
	// while others are being built.
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", fmt.Errorf("locking the cache folder: %w", err)
	}
	defer unlock()
	if path, there, err := p.Built(); err != nil || there {
		return path, err
	}
	temp, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return "", fmt.Errorf("making a folder to build in: %w", err)
	}
	defer os.RemoveAll(temp)
	sources := filepath.Join(temp, "sources")
	if err := os.CopyFS(sources, p.Sources); err != nil {
		return "", fmt.Errorf("copying the sources of %s: %w", p.Name, err)
	}
	complete := filepath.Join(temp, "complete")
	// All programs share what they are built from.
	err = p.install(cargo, filepath.Join(sources, filepath.FromSlash(p.Folder)), filepath.Join(cache, "target"), complete)
	if err != nil {
		return "", fmt.Errorf("building %s: %w", p.Name, err)
	}
	err = os.Rename(complete, dir)
	if _, statErr := os.Stat(path); err != nil && statErr != nil {
		return "", fmt.Errorf("putting %s in place: %w", p.Name, err)
	}
	return path, nil
}

func (p Program) install(cargo, sources, target, root string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	profile := p.Profile
	if profile == "" {
		profile = "release"
	}
	cmd := exec.CommandContext(ctx, cargo, "install", "--locked", "--no-track", "--profile", profile,
		"--path", sources, "--bin", p.Name, "--target-dir", target, "--root", root)
	cmd.Dir = sources
	cmd.Env = append(os.Environ(), searchPath(cargo), "CARGO_TERM_COLOR=never", "CARGO_NET_RETRY=1", "CARGO_INCREMENTAL=0")
	cmd.WaitDelay = time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cargo install: %w: %s", errors.Join(err, ctx.Err()), reason(output.String()))
	}
	return nil
}

// searchPath is a PATH on which cargo finds the compiler next to itself.
func searchPath(cargo string) string {
	return "PATH=" + filepath.Dir(cargo) + string(os.PathListSeparator) + os.Getenv("PATH")
}

// reason is the part of cargo's output that says why it failed: its errors and
// their causes in one line.
func reason(output string) string {
	_, text, found := strings.Cut("\n"+output, "\nerror")
	if !found {
		text = output[max(0, len(output)-500):]
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 500 {
		text = text[:500] + "..."
	}
	return strings.TrimLeft(text, ": ")
}

// sum is one for exactly these sources and settings.
func (p Program) sum() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(p.Sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(p.Sources, path)
		fmt.Fprintf(h, "%s %d\n", path, len(content))
		h.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the sources of %s: %w", p.Name, err)
	}
	fmt.Fprint(h, p.Folder, p.Profile)
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

func cacheFolder() (string, error) {
	if folder := os.Getenv(CacheEnv); folder != "" {
		folder, err := filepath.Abs(folder)
		if err != nil {
			return "", fmt.Errorf("%s: %w", CacheEnv, err)
		}
		return folder, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder to build into (set %s): %w", CacheEnv, err)
	}
	return filepath.Join(cache, "gworker", "cargo"), nil
}
