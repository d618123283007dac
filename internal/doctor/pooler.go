package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gworker/gworker/internal/dbgen"
)

// secondConnection bounds the wait for the connection that checkPooler needs for
// a moment.
const secondConnection = 5 * time.Second

// checkPooler finds out whether a pooler is between this machine and the server. If the
// process id that the client was given differs from that of its server process, it talks to
// a pooler. To find out whether the pooler gives each transaction another server process, a
// second connection occupies one meanwhile.
func checkPooler(ctx context.Context, c *checker) (Finding, error) {
	if c.conn.Conn().PgConn().PID() == uint32(c.server.Pid) {
		return ok("No pooler stands between this machine and the server."), nil
	}
	p := prober{checker: c}
	if err := p.probe(ctx); err != nil {
		return Finding{}, err
	}
	switch {
	case p.prepared && p.lost && !c.options.Unprepared:
		return Finding{
			Severity: Problem,
			What:     "A pooler gives each transaction any server process, and prepared statements do not survive that.",
			Why:      "Workers and clients prepare their statements: they fail with SQLSTATE 26000 or 42P05. Notifications do not arrive either.",
			Help: []string{
				"Run with --no-prepared-statements (Config.NoPreparedStatements, ClientConfig.NoPreparedStatements),",
				"or set max_prepared_statements = 200 in PgBouncer 1.21 or newer,",
				"or connect to the server itself.",
			},
		}, nil
	case p.shared:
		return Finding{
			Severity: Warning,
			What:     "A pooler gives each transaction any server process.",
			Why:      "LISTEN needs a session of its own, so workers do not hear of new jobs and find them when they poll.",
			Help: []string{
				"Let workers listen past the pooler: --listen-database-url (Config.ListenDatabaseURL) with the server's own address.",
				"Else run them with --no-listen (Config.NoListen) and choose --poll-interval.",
			},
		}, nil
	case !p.occupied:
		return Finding{
			Severity: Note,
			What:     "A pooler stands in between. How it pools was not found out, for want of a second connection.",
			Why:      "Where it pools transactions, prepared statements and LISTEN do not work.",
			Help:     []string{"Run the doctor with a pool of at least two connections."},
		}, nil
	}
	return Finding{
		Severity: Note,
		What:     "A pooler stands between this machine and the server; sessions keep their server process.",
		Why:      "Nothing is wrong with that. It counts as a connection more that can be lost.",
	}, nil
}

type prober struct {
	*checker
	occupied bool // a second connection held a server process
	shared   bool // transactions of one client had different processes
	prepared bool // a statement could be prepared
	lost     bool // the statement was not there afterwards
}

func (p *prober) probe(ctx context.Context) error {
	own := p.conn.Conn()
	name := "gworker_doctor_" + strings.ToLower(rand.Text())
	_, err := own.PgConn().Prepare(ctx, name, "select 1", nil)
	if err := fatal(err); err != nil {
		return err
	}
	p.prepared = err == nil
	before, err := get(ctx, p.checker, (*dbgen.Queries).DoctorClock)
	if err != nil {
		return err
	}
	err = p.occupy(ctx, func(other int32) error {
		p.occupied = true
		now, err := get(ctx, p.checker, (*dbgen.Queries).DoctorClock)
		if err != nil {
			return err
		}
		p.shared = now.Pid != before.Pid || other == before.Pid
		if !p.prepared {
			return nil
		}
		_, err = own.PgConn().ExecPrepared(ctx, name, nil, nil, nil).Close()
		var answer *pgconn.PgError
		if errors.As(err, &answer) && answer.Code == pgerrcode.InvalidSQLStatementName {
			p.lost = true
			return nil
		}
		return err
	})
	if err != nil || !p.prepared {
		return err
	}
	return fatal(own.PgConn().Deallocate(ctx, name))
}

// occupy calls f while another connection is in a transaction, and passes the id of that
// one's server process.
func (p *prober) occupy(ctx context.Context, f func(int32) error) error {
	if p.pool.Config().MaxConns < 2 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, secondConnection)
	defer cancel()
	other, err := p.pool.Acquire(waiting)
	if err != nil {
		return ctx.Err() // no second connection is available
	}
	defer other.Release()
	return readOnly(ctx, other.Conn(), func(tx pgx.Tx) error {
		row, err := p.set.On(tx).DoctorClock(ctx)
		if err != nil {
			return err
		}
		return f(row.Pid)
	})
}
