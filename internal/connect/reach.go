package connect

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/event"
	"github.com/gworker/gworker/internal/advice"
	"github.com/gworker/gworker/internal/eventstream"
	"github.com/gworker/gworker/internal/retry"
	"github.com/gworker/gworker/internal/statement"
	"github.com/gworker/gworker/internal/wait"
)

// tryTimeout bounds one attempt to reach the database, if several are possible.
const tryTimeout = 10 * time.Second

// Ping asks the database for a sign of life. Its error says where nobody answers, and is
// never just that ctx has ended.
func Ping(ctx context.Context, pool *pgxpool.Pool) error { return probe(ctx, pool, pool.Ping) }

// transact tries a transaction, which every worker needs, and which a proxy that pools single
// statements does not allow.
func transact(ctx context.Context, pool *pgxpool.Pool) error {
	return probe(ctx, pool, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, pool, func(pgx.Tx) error { return nil })
	})
}

// probe runs f on the database. If there is no answer, its error names the server.
func probe(ctx context.Context, pool *pgxpool.Pool, ask func(context.Context) error) error {
	began := time.Now()
	err := ask(ctx)
	if isSilence(err) {
		return &silentServerError{address: addressOf(pool.Config().ConnConfig), after: time.Since(began), err: err}
	}
	return err
}

// isSilence reports whether err only says that there was no answer in time.
func isSilence(err error) bool {
	var answer *pgconn.PgError
	var Wait *pgconn.ConnectError
	return errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &answer) && !errors.As(err, &Wait)
}

// silentServerError is the error of an attempt without an answer.
type silentServerError struct {
	address string
	after   time.Duration
	err     error
}

func (e *silentServerError) Error() string {
	return fmt.Sprintf("%s did not answer within %s", e.address, e.after.Round(100*time.Millisecond))
}

func (e *silentServerError) Unwrap() error { return e.err }

// addressOf names the servers of a configuration.
func addressOf(config *pgx.ConnConfig) string {
	addresses := []string{address(config.Host, config.Port)}
	for _, f := range config.Fallbacks {
		if a := address(f.Host, f.Port); !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	return strings.Join(addresses, ", ")
}

func address(host string, port uint16) string {
	if network, socket := pgconn.NetworkAddress(host, port); network == "unix" {
		return socket
	}
	return net.JoinHostPort(host, fmt.Sprint(port))
}

// Wait waits, at most for limit, until a transaction on the database succeeds. It gives up
// at once if waiting cannot help.
func Wait(ctx context.Context, pool *pgxpool.Pool, limit time.Duration, events *eventstream.Stream) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	waits := retry.StartBackoff()
	var said error // the last that says more than that there is no answer
	for {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		err := transact(try, pool)
		cancel()
		if err == nil {
			return nil
		}
		if !MayPass(err) {
			return fmt.Errorf("connecting to the database: %w", err)
		}
		var silent *silentServerError
		if !errors.As(err, &silent) && !errors.Is(err, context.Canceled) {
			said = err
		}
		retryIn := waits.NextBackOff()
		if deadline, _ := ctx.Deadline(); time.Now().Add(retryIn).After(deadline) {
			if said != nil && said != err { //nolint:errorlint // the very same
				err = fmt.Errorf("%w; before that: %w", err, said)
			}
			return fmt.Errorf("connecting to the database: gave up after %s: %w", limit, err)
		}
		events.Emit(event.DatabaseUnreachable{Err: err, RetryIn: retryIn, ReadOnly: statement.IsReadOnly(err)})
		if ended := wait.Sleep(ctx, retryIn); ended != nil {
			return fmt.Errorf("connecting to the database: %w: %w", ended, err)
		}
	}
}

// MayPass reports whether a later attempt may succeed with the same configuration, as it
// cannot if the server has answered and refused.
func MayPass(err error) bool {
	return (retry.Passes(err) || errors.Is(err, context.DeadlineExceeded)) && adviceFor(err) == ""
}

// Advised adds to err what the reader can do, if that is known.
func Advised(err error) error {
	if err == nil {
		return nil
	}
	if text := adviceFor(err); text != "" {
		return &advice.Error{Err: err, Advice: text}
	}
	return err
}

// AdvisedToWrite is Advised for a read-only database, which may be temporary: a standby is
// promoted, or a maintenance ends.
func AdvisedToWrite(err error) error {
	if !statement.IsReadOnly(err) {
		return err
	}
	return &advice.Error{Err: err, Advice: "the database is read-only: it is a standby, or default_transaction_read_only is on. " +
		"Connect to the primary, as with target_session_attrs=read-write, or reset the setting of the role, the database or the server"}
}

// adviceFor is what to do about an error that does not pass by itself and does not explain
// its reason; "" for others. A connection is tried at each address, with TLS and without: if
// one of these attempts may succeed the next time, there is nothing to do.
func adviceFor(err error) string {
	advice := ""
	for _, try := range triesOf(err) {
		text := adviceForTry(try)
		if text == "" {
			return ""
		}
		advice = cmp.Or(advice, text)
	}
	return advice
}

// triesOf are the errors of the attempts in a failure to Wait, or err itself. The refusal
// of TLS by a server without it is left out if the attempt was repeated without TLS.
func triesOf(err error) []error {
	var Wait *pgconn.ConnectError
	if !errors.As(err, &Wait) {
		return []error{err}
	}
	tries := joinedIn(Wait)
	telling := slices.DeleteFunc(slices.Clone(tries), refusedTLS)
	if len(telling) == 0 {
		return tries
	}
	return telling
}

// joinedIn are the errors that were joined in err, or err itself.
func joinedIn(err error) []error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if joined, is := inner.(interface{ Unwrap() []error }); is {
			return joined.Unwrap()
		}
	}
	return []error{err}
}

// refusedTLS reports whether the server has no TLS, by its own word or by its answer.
func refusedTLS(try error) bool {
	var answered tls.RecordHeaderError
	return errors.As(try, &answered) || strings.Contains(try.Error(), "server refused TLS connection")
}

func adviceForTry(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return adviceForAnswer(answer)
	}
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var other *tls.CertificateVerificationError
	switch {
	case errors.As(err, &authority):
		return "the server's certificate is of an authority that is not known here: " +
			"name the authority's certificate by sslrootcert=FILE in the connection string"
	case errors.As(err, &host):
		return "the server's certificate is for another name: Wait by a name that it has, " +
			"or use sslmode=verify-ca, which does not look at the name"
	case errors.As(err, &invalid), errors.As(err, &other):
		return "the server's certificate is not valid: see what is wrong with it, and with the files that sslrootcert, sslcert and sslkey name"
	case refusedTLS(err):
		return "the server has no TLS, which the connection string or PGSSLMODE asks for: use sslmode=prefer or disable, or switch it on there"
	}
	return ""
}

// poolerAnswers are texts of PgBouncer, which has the same code for all its errors.
var poolerAnswers = []struct{ text, advice string }{
	{"statement pooling mode", "the proxy pools single statements: use session pooling, or transaction pooling with Config.NoPreparedStatements"},
	{"unsupported startup parameter", "let the proxy ignore the parameter (ignore_startup_parameters in PgBouncer), or leave it out"},
	{"no such database", "check the database's name in the connection string and in the proxy's configuration"},
	{"no such user", "check the user in the connection string and in the proxy's configuration"},
}

func adviceForAnswer(answer *pgconn.PgError) string {
	switch answer.Code {
	case pgerrcode.DuplicatePreparedStatement, pgerrcode.InvalidSQLStatementName:
		return "behind a proxy that pools transactions, such as PgBouncer, set Config.NoPreparedStatements"
	case pgerrcode.ProtocolViolation:
		for _, a := range poolerAnswers {
			if strings.Contains(answer.Message, a.text) {
				return a.advice
			}
		}
		if strings.Contains(answer.Message, "prepared statement") || strings.Contains(answer.Message, "bind message") {
			return "behind a proxy that pools transactions, such as PgBouncer, set Config.NoPreparedStatements"
		}
	}
	return ""
}
