// Package devpg runs a PostgreSQL for development and tests: the one that DATABASE_URL
// names, else the server programs in the folder that GWORKER_POSTGRES_BIN names, else
// those found on the machine, else ones that it downloads.
//
// A folder for the data comes in; a server, and the URL of a database on it, go out.
// The one thing not to break: it never touches a cluster that it did not make, so
// everything of it is in a folder of its own, with the cluster in it and the lock next
// to that.
//
// The server asks for no password. It listens on the loopback interface only, where
// every account of the machine can connect while it runs, or, if it is to be private,
// on a socket that no other account can reach. It ends with the process that started
// it, even if that is killed: a shell that waits for the end of its standard input
// stops the server and removes temporary data. PostgreSQL refuses to run as root, so
// for root the server runs under the account postgres or nobody, with its data in a
// folder that this account can reach.
//
// Downloads come from Maven Central, or from the mirror that
// GWORKER_POSTGRES_REPOSITORY names.
package devpg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Options say which server is wanted. The zero value is one with temporary data,
// or the one that DATABASE_URL names.
type Options struct {
	// DataDir keeps the data between runs; it is made if it is missing. Empty:
	// a temporary folder, which Close removes.
	DataDir string
	// Port is where the server listens; 0 means the one it had the last time
	// if that is free, else any free one.
	Port int
	// Private makes the server listen on a socket in a folder that no other account can
	// enter, instead of the loopback interface: so no other account of the machine can
	// connect. Port means nothing then. On Windows nothing changes.
	Private bool
	// Fast gives up what only a crash of the machine needs. A crash of the
	// server loses nothing. Temporary data is in /dev/shm on Linux if that is memory
	// with 4 GB free and TMPDIR is not set.
	Fast bool
	// Settings are put on top of the server's defaults, for this start.
	Settings map[string]string
	// Database is created if it is missing; empty means none.
	Database string
	// Progress, if not nil, is told what takes time.
	Progress func(string)
	// Programs is the folder of the server's programs, of any version. Empty
	// means the one that GWORKER_POSTGRES_BIN names, else what is found.
	Programs string
	// IgnoreEnvironment starts a server even if DATABASE_URL is set.
	IgnoreEnvironment bool
	// URL, if not empty, is used in place of DATABASE_URL.
	URL string
}

// A Server is one that can be connected to, until Stop. Its methods are safe for
// concurrent use.
type Server struct {
	options  Options
	external string // its URL, if it is not ours
	adopted  bool   // another process runs it

	mu        sync.Mutex
	cluster   cluster
	process   *process // nil while stopped
	at        address  // where it listens, or did the last time
	temporary *folder
	// socket is a folder for the socket alone, which Stop removes; as a rule there is none.
	socket string
}

// Start starts a server, or finds one that runs already: that of DATABASE_URL,
// or one that another process runs on the same DataDir. Those two are left alone
// by Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{options: o}
	if o.Progress == nil {
		s.options.Progress = func(string) {}
	}
	var err error
	if o.URL != "" {
		s.external = o.URL
	} else if env := os.Getenv("DATABASE_URL"); env != "" && !o.IgnoreEnvironment {
		s.external = env
	} else if err = s.own(ctx); err != nil {
		return nil, err
	}
	if o.Database == "" {
		return s, nil
	}
	if err := s.createDatabase(ctx, o.Database); err != nil {
		return nil, errors.Join(fmt.Errorf("creating database %q: %w", o.Database, err), s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// own starts a server on data of its own.
func (s *Server) own(ctx context.Context) (err error) {
	account, err := serverAccount()
	if err != nil {
		return err
	}
	var place *folder
	if s.options.DataDir == "" {
		sweep()
		place, err = temporaryFolder(account, s.options.Fast)
	} else {
		place, err = keptFolder(s.options.DataDir, account)
		if err == nil && s.options.Private {
			err = account.alone(place.path)
		}
	}
	if err != nil {
		return err
	}
	if s.options.DataDir == "" {
		s.temporary = place
		defer func() {
			if err != nil {
				err = errors.Join(err, place.remove())
			}
		}()
	} else {
		// Whoever comes second finds a finished cluster, or a server.
		if err := place.lock(ctx); err != nil {
			return err
		}
		defer place.unlock()
	}
	s.cluster = cluster{
		dir: filepath.Join(place.path, "pgdata"), account: account, fast: s.options.Fast, temporary: s.temporary != nil,
	}
	if at := s.cluster.running(ctx); at.port != 0 {
		s.options.Progress(fmt.Sprintf("using the PostgreSQL that already runs on %s", place.path))
		s.adopted, s.at = true, at
		return nil
	}
	if err := s.cluster.prepare(ctx, s.options.Programs, s.options.Progress); err != nil {
		return err
	}
	return s.start(ctx)
}

// Stop stops the server in an orderly way and keeps its data. It does nothing if
// the server is not this one's to stop, or stopped already.
func (s *Server) Stop(ctx context.Context) error { return s.end(ctx, signalFast) }

// Crash stops the server the way a power cut would: nothing more is written,
// and the next start has to recover.
func (s *Server) Crash(ctx context.Context) error { return s.end(ctx, signalImmediate) }

// Close stops the server and removes its data if that was temporary.
func (s *Server) Close(ctx context.Context) error {
	err := s.Stop(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.temporary != nil {
		err = errors.Join(err, s.temporary.remove())
		s.temporary = nil
	}
	return err
}

// Restart starts a stopped server again, on the same port.
func (s *Server) Restart(ctx context.Context) error {
	if s.external != "" || s.adopted {
		return errors.New("restarting a PostgreSQL that another process runs")
	}
	return s.start(ctx)
}

// External says that the server was running already.
func (s *Server) External() bool { return s.external != "" || s.adopted }

// URL is the connection string for a database of the server.
func (s *Server) URL(database string) string {
	if s.external == "" {
		return s.at.url(database)
	}
	if u, err := url.Parse(s.external); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		u.Path = "/" + database
		return u.String()
	}
	// libpq's key=value form, where the last one counts.
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database)
	return s.external + " dbname='" + quoted + "'"
}

// AdminURL is the connection string for statements about the server itself: for
// an external one, the database that its own URL names.
func (s *Server) AdminURL() string {
	if s.external != "" {
		return s.external
	}
	return s.URL("postgres")
}

// createDatabase makes a database unless it is there, whoever comes first.
func (s *Server) createDatabase(ctx context.Context, name string) error {
	if conn, err := pgx.Connect(ctx, s.URL(name)); err == nil {
		return conn.Close(ctx)
	}
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize())
	var answer *pgconn.PgError
	if errors.As(err, &answer) && (answer.Code == pgerrcode.DuplicateDatabase || answer.Code == pgerrcode.UniqueViolation) {
		return nil
	}
	return err
}
