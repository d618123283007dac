package rust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// CacheEnv names the environment variable with the folder to build in, in place of
// gworker/interop in the user's cache folder.
const CacheEnv = "GWORKER_INTEROP_CACHE"

// What the crates ask for.
const cargoMajor, cargoMinor = 1, 94

const (
	versionTimeout = 30 * time.Second
	buildTimeout   = 20 * time.Minute // of 250 crates, on a busy machine without them
)

const (
	binary = "interop-rust"
	// digestEnv is the digest of the sources, which the program carries in itself
	// after digestMark.
	digestEnv, digestMark = "GWORKER_INTEROP_DIGEST", "built from "
)

//go:embed Cargo.toml Cargo.lock src/*.rs revision20/Cargo.toml revision20/Cargo.lock
var sources embed.FS

var builds sync.Map // of a Version, its build

// Build returns the path of the program on the version, and builds it first where
// that was not done before. It is safe for concurrent use, also by several
// processes: cargo builds for one after the other.
func Build(v Version) (program string, err error) {
	once, _ := builds.LoadOrStore(v, sync.OnceValues(func() (string, error) { return build(v) }))
	return once.(func() (string, error))()
}

func build(v Version) (program string, err error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum, err := digest(v)
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "rust-"+v.Number+"-"+sum, binary)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for a built program: %w", err)
	}
	cargo, err := findCargo()
	if err != nil {
		return "", err
	}
	// What other crates compile to serves until a lock file changes. Nearly all are the
	// same for every version.
	locked := sha256.New()
	for _, v := range Versions {
		content, err := sources.ReadFile(path.Join(v.folder, "Cargo.lock"))
		if err != nil {
			return "", fmt.Errorf("reading the sources: %w", err)
		}
		locked.Write(content)
	}
	target := filepath.Join(dir, "rust-target-"+hex.EncodeToString(locked.Sum(nil)[:8]))
	for range builders {
		if err := compile(cargo, v, sum, dir, target); err != nil {
			return "", err
		}
		if err = install(filepath.Join(target, "debug", binary), program, sum); !errors.Is(err, errOther) {
			break
		}
	}
	return program, err
}

// builders bounds how often another process may build other sources between our
// build and our copy of what came out.
const builders = 5

var errOther = errors.New("another process built other sources meanwhile")

// compile unpacks the sources into a folder of its own and has cargo build them.
func compile(cargo string, v Version, sum, dir, target string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the cache folder: %w", err)
	}
	unpacked, err := os.MkdirTemp(dir, "building-")
	if err != nil {
		return fmt.Errorf("making a folder to build in: %w", err)
	}
	defer os.RemoveAll(unpacked)
	if err := os.CopyFS(unpacked, sources); err != nil {
		return fmt.Errorf("unpacking the sources: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, cargo, "build", "--locked", "--quiet", "--target-dir", target)
	cmd.Dir = filepath.Join(unpacked, v.folder)
	cmd.Env = append(os.Environ(), cargoPath(cargo), digestEnv+"="+digestMark+sum, "CARGO_NET_RETRY=1") // not a minute, to find out being offline
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cargo build of graphile_worker %s: %w\n%s", v.Number, err, strings.TrimSpace(output.String()))
	}
	return nil
}

// install puts a copy of the program in its place, complete at once.
func install(built, program, sum string) error {
	content, err := os.ReadFile(built)
	if err != nil {
		return fmt.Errorf("reading the built program: %w", err)
	}
	if !bytes.Contains(content, []byte(digestMark+sum)) {
		return fmt.Errorf("reading the built program: %w", errOther)
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return fmt.Errorf("installing the program: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(program), "installing-")
	if err != nil {
		return fmt.Errorf("installing the program: %w", err)
	}
	defer os.Remove(temp.Name()) // fails once it has its name
	if _, err = temp.Write(content); err == nil {
		err = temp.Chmod(0o755)
	}
	if err := errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("installing the program: %w", err)
	}
	if err := os.Rename(temp.Name(), program); err != nil {
		return fmt.Errorf("installing the program: %w", err)
	}
	return nil
}

// digest names the content of every source that the version is built from.
func digest(v Version) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		other := entry != nil && entry.IsDir() && path != "." && path != "src" && path != v.folder
		switch {
		case err != nil:
			return err
		case other:
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		content, err := sources.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n", path, len(content))
		sum.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the sources: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

func cacheDir() (string, error) {
	base := os.Getenv(CacheEnv)
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder to build in (set %s): %w", CacheEnv, err)
		}
		base = filepath.Join(user, "gworker", "interop")
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return "", fmt.Errorf("%s: %w", CacheEnv, err)
	}
	return base, nil
}

// Available tells why the programs cannot be built here, or nil: whether there is a
// cargo that is new enough.
func Available() error {
	_, err := findCargo()
	return err
}

// findCargo finds a cargo that is new enough: on the PATH, or where its installer
// puts it.
func findCargo() (string, error) {
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		home := os.Getenv("CARGO_HOME")
		if user, err := os.UserHomeDir(); home == "" && err == nil {
			home = filepath.Join(user, ".cargo")
		}
		if cargo, err = exec.LookPath(filepath.Join(home, "bin", "cargo")); err != nil {
			return "", errors.New("cargo is not installed")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, cargo, "--version")
	cmd.Env = append(os.Environ(), cargoPath(cargo))
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cargo --version: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "cargo %d.%d.", &major, &minor); err != nil {
		return "", fmt.Errorf("cargo --version said %q", out)
	}
	if major < cargoMajor || major == cargoMajor && minor < cargoMinor {
		return "", fmt.Errorf("cargo is %d.%d, and the crates need %d.%d", major, minor, cargoMajor, cargoMinor)
	}
	return cargo, nil
}

// cargoPath is a PATH on which cargo finds the compiler beside itself.
func cargoPath(cargo string) string {
	return "PATH=" + filepath.Dir(cargo) + string(os.PathListSeparator) + os.Getenv("PATH")
}
