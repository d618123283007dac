package devpg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// socketPort is part of the name of a socket.
	socketPort = 5432
	// longestSocket is the most bytes that the path of a socket can have on every
	// system.
	longestSocket = 103
	socketName    = "socket"
)

// address is where a server listens: on the loopback interface, or on a socket in a
// folder that only its own account and ours can enter.
type address struct {
	port   int    // 0: nowhere
	socket string // the folder; empty means the loopback interface
}

func (a address) url(database string) string {
	// sslmode: whatever PGSSLMODE asks for, and for drivers that ask by themselves.
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: "sslmode=disable"}
	if a.socket == "" {
		u.Host = fmt.Sprintf("127.0.0.1:%d", a.port)
		return u.String()
	}
	// libpq does not read + as a space.
	folder := strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(a.socket))
	u.RawQuery = fmt.Sprintf("host=%s&port=%d&sslmode=disable", folder, a.port)
	return u.String()
}

// settings make a server listen there.
func (a address) settings() map[string]string {
	if a.socket == "" {
		return map[string]string{"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": strconv.Itoa(a.port)}
	}
	// A list of names, in which quotes go round one with commas or spaces.
	quoted := `"` + strings.ReplaceAll(a.socket, `"`, `""`) + `"`
	return map[string]string{
		"listen_addresses": "", "unix_socket_directories": quoted, "unix_socket_permissions": "0700", "port": strconv.Itoa(a.port),
	}
}

// socketFolder makes the folder of a server's socket, which only the account and root
// can enter. It is in the folder of the data, unless its name would be too long there,
// or mean a list of hosts to clients: then temporary says that it is to be removed.
func socketFolder(place string, a account) (dir string, temporary bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("making the folder for the server's socket: %w", err)
		}
	}()
	dir = filepath.Join(place, socketName)
	if len(filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", socketPort))) > longestSocket || strings.Contains(dir, ",") {
		base, err := temporaryBase(a)
		if err != nil {
			return "", false, err
		}
		if dir, err = os.MkdirTemp(base, "gworker-socket-*"); err != nil {
			return "", false, err
		}
		return dir, true, a.own(dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", false, err
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return "", false, errors.Join(err, fmt.Errorf("%s is no folder", dir))
	}
	return dir, false, errors.Join(a.own(dir), os.Chmod(dir, 0o700))
}
