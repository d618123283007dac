package devpg

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// oldest is the first version that the schema works on.
const oldest = 12

// programs is a folder with the server's programs.
type programs struct {
	dir     string
	version string // such as "15.18"
}

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

func (p programs) major() int {
	digits, _, _ := strings.Cut(p.version, ".")
	n, _ := strconv.Atoi(digits)
	return n
}

// find lists the programs on this machine, the newest first and those of the
// PATH before the others.
func find(ctx context.Context) []programs {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	preferred := len(dirs)
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // the RPMs of postgresql.org
		"/usr/lib/postgresql*/bin",  // SUSE
		"/usr/libexec/postgresql*",  // Alpine
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/Library/PostgreSQL/*/bin",
		"/usr/local/pgsql/bin",
		`C:\Program Files\PostgreSQL\*\bin`,
	} {
		matches, _ := filepath.Glob(pattern) // the patterns are constants, and valid
		dirs = append(dirs, matches...)
	}
	var found []programs
	for i, dir := range dirs {
		if slices.Contains(dirs[:i], dir) {
			continue
		}
		if p, err := inspect(ctx, dir); err == nil && p.major() >= oldest {
			found = append(found, p)
		} else if i < preferred {
			preferred-- // keeps the rest sorted
		}
	}
	preferred = min(preferred, len(found))
	slices.SortStableFunc(found[preferred:], func(a, b programs) int { return b.major() - a.major() })
	return found
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)*`)

func inspect(ctx context.Context, dir string) (programs, error) {
	p := programs{dir: dir}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(p.path(name)); err != nil {
			return p, err
		}
	}
	out, err := exec.CommandContext(ctx, p.path("postgres"), "--version").Output()
	if err != nil {
		return p, err
	}
	p.version = versionNumber.FindString(string(out))
	return p, nil
}

// programsEnv names the environment variable with the folder of the programs to
// use, in place of those that are found.
const programsEnv = "GWORKER_POSTGRES_BIN"

// choose picks the programs for a cluster of a major version, 0 for a new one.
// given is their folder, if the caller or the environment has named one.
func choose(ctx context.Context, given string, major int, a account, progress func(string)) (programs, error) {
	if given = cmp.Or(given, os.Getenv(programsEnv)); given != "" {
		p, err := inspect(ctx, given)
		if err != nil {
			return programs{}, fmt.Errorf("no programs of PostgreSQL in %s: %w", given, err)
		}
		if major != 0 && p.major() != major {
			return programs{}, fmt.Errorf("the data was made by PostgreSQL %d and the programs in %s are of %s", major, given, p.version)
		}
		return p, nil
	}
	found := find(ctx)
	for _, p := range found {
		if major == 0 || p.major() == major {
			return p, nil
		}
	}
	if major != 0 && len(found) > 0 {
		return programs{}, fmt.Errorf("the data was made by PostgreSQL %d and this machine has %s: "+
			"install version %d, or choose another folder for the data", major, found[0].version, major)
	}
	return download(ctx, major, a, progress)
}

// downloadable are the versions that embedded-postgres has.
var downloadable = []embeddedpostgres.PostgresVersion{
	embeddedpostgres.V17, embeddedpostgres.V16, embeddedpostgres.V15, embeddedpostgres.V14,
	embeddedpostgres.V13, embeddedpostgres.V12,
}

// download fetches the programs once and keeps them in the cache folder.
func download(ctx context.Context, major int, a account, progress func(string)) (programs, error) {
	version := downloadable[0]
	for _, v := range downloadable {
		if strings.HasPrefix(string(v), strconv.Itoa(major)+".") {
			version = v
		}
	}
	cache, err := cacheDir(a)
	if err != nil {
		return programs{}, err
	}
	place, err := keptFolder(filepath.Join(cache, "postgresql", string(version)), a)
	if err != nil {
		return programs{}, err
	}
	if err := place.lock(ctx); err != nil {
		return programs{}, err
	}
	defer place.unlock()
	dir := filepath.Join(place.path, "bin")
	if p, err := inspect(ctx, dir); err == nil {
		return p, nil
	}
	progress(fmt.Sprintf("no PostgreSQL on this machine: downloading %s", version))
	if err := fetch(ctx, version, place.path); err != nil {
		return programs{}, fmt.Errorf("no PostgreSQL (%d or newer) was found on this machine, and downloading %s failed: %w. "+
			"Install one (on Debian: apt-get install postgresql), or set DATABASE_URL to a server that runs",
			oldest, version, err)
	}
	return inspect(ctx, dir)
}

// fetch lets embedded-postgres download and unpack. It can only do that on the
// way to a start, whose own success is no matter: as root it fails.
func fetch(ctx context.Context, version embeddedpostgres.PostgresVersion, dir string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "gworker-download-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	config := embeddedpostgres.DefaultConfig().Version(version).Port(uint32(port)).Database("postgres").
		RuntimePath(filepath.Join(scratch, "run")).CachePath(scratch).BinariesPath(dir).Logger(io.Discard)
	if repository := os.Getenv("GWORKER_POSTGRES_REPOSITORY"); repository != "" {
		config = config.BinaryRepositoryURL(repository)
	}
	embedded := embeddedpostgres.NewDatabase(config)
	err = embedded.Start()
	if err == nil {
		err = embedded.Stop()
	}
	if _, inspectErr := inspect(ctx, filepath.Join(dir, "bin")); inspectErr != nil {
		return cmp.Or(err, inspectErr)
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// cacheDir is the user's cache folder, or for root, if the server's account
// cannot reach that, the machine's.
func cacheDir(a account) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil || !a.reaches(dir) {
		if runtime.GOOS != "windows" && os.Geteuid() == 0 {
			return "/var/cache/gworker", nil
		}
		if err != nil {
			return "", fmt.Errorf("looking for a folder to keep data in: %w", err)
		}
	}
	return filepath.Join(dir, "gworker"), nil
}

// CacheDir is where gworker keeps what it can make again: a folder that the
// account which runs servers can reach. It need not exist yet.
func CacheDir() (string, error) {
	a, err := serverAccount()
	if err != nil {
		return "", err
	}
	return cacheDir(a)
}

// DefaultDataDir is where `gworker dev` keeps its data: gworker/dev in the user's
// cache folder. For root that is often closed to the account which the server
// runs under; then it is /var/cache/gworker/dev.
func DefaultDataDir() (string, error) {
	a, err := serverAccount()
	if err != nil {
		return "", err
	}
	dir, err := cacheDir(a)
	return filepath.Join(dir, "dev"), err
}
