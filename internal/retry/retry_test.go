package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/gworker/gworker/internal/retry"
)

func answer(code, severity string) error {
	return fmt.Errorf("statement X: %w", &pgconn.PgError{Code: code, Severity: severity, SeverityUnlocalized: severity})
}

// inFunction is an error with a context: it came from inside of a function.
func inFunction(code string) error {
	return &pgconn.PgError{Code: code, SeverityUnlocalized: "ERROR", Where: "Función PL/pgSQL f() en la línea 1"}
}

// raisedAs is an error that a function has raised on purpose.
func raisedAs(code string) error {
	return &pgconn.PgError{Code: code, SeverityUnlocalized: "ERROR", Routine: "exec_stmt_raise"}
}

// connecting is how pgx tells that a server has refused a connection.
func connecting(t *testing.T, code string) error {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		backend := pgproto3.NewBackend(conn, conn)
		if _, err := backend.ReceiveStartupMessage(); err != nil {
			return
		}
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "no"})
		_ = backend.Flush()
	}()
	_, err = pgconn.Connect(t.Context(), "postgres://x@"+server.Addr().String()+"/x?sslmode=disable")
	if err == nil {
		t.Fatal("connected")
	}
	return err
}

func TestErrorsAreClassified(t *testing.T) {
	for _, c := range []struct {
		err     error
		class   retry.Class
		refused bool
	}{
		{answer("40001", "ERROR"), retry.Contention, true},
		{answer("40P01", "ERROR"), retry.Contention, true},
		{answer("57P01", "FATAL"), retry.Connection, false},
		{answer("57P03", "FATAL"), retry.Connection, false},
		{answer("25006", "ERROR"), retry.Connection, true},
		{answer("53300", "FATAL"), retry.Connection, false},
		{answer("08006", "ERROR"), retry.Connection, true},
		{answer("57014", "ERROR"), retry.Connection, true},
		{answer("57P04", "FATAL"), retry.Connection, false},
		{answer("57P05", "FATAL"), retry.Connection, true},
		{answer("25P03", "FATAL"), retry.Connection, true},
		{answer("25P04", "FATAL"), retry.Connection, false},
		{answer("42501", "FATAL"), retry.Connection, false}, // ended a session, whatever for
		{answer("55P03", "ERROR"), retry.Contention, true},
		{answer("26000", "ERROR"), retry.Contention, true},
		{answer("40000", "ERROR"), retry.Contention, true},
		{answer("53100", "ERROR"), retry.Connection, true},
		{answer("53200", "ERROR"), retry.Connection, true},
		{answer("58030", "ERROR"), retry.No, true},
		{answer("XX001", "ERROR"), retry.No, true},
		{answer("0A000", "ERROR"), retry.No, true},
		{answer("42501", "ERROR"), retry.No, true},
		{&pgconn.PgError{Code: "42501", SeverityUnlocalized: "ERROR", Routine: "aclcheck_error"}, retry.No, true},
		{&pgconn.PgError{Code: "42501", SeverityUnlocalized: "ERROR", Routine: "ExecWithCheckOptions"}, retry.Answer, true},
		{answer("GW001", "ERROR"), retry.No, true},
		{answer("23505", "ERROR"), retry.Answer, true},
		{answer("22P05", "ERROR"), retry.Answer, true},
		{answer("22021", "ERROR"), retry.Answer, true},
		{answer("P0001", "ERROR"), retry.Answer, true},
		{answer("21000", "ERROR"), retry.Answer, true},
		{answer("54000", "ERROR"), retry.Answer, true},
		{inFunction("42P01"), retry.Answer, true},
		{inFunction("42703"), retry.Answer, true},
		{inFunction("53100"), retry.Connection, true},
		{inFunction("40P01"), retry.Contention, true},
		{raisedAs("40001"), retry.Answer, true},
		{raisedAs("57P01"), retry.Answer, true},
		{raisedAs("MINE1"), retry.Answer, true},
		{connecting(t, "28P01"), retry.No, false},
		{connecting(t, "22023"), retry.No, false},
		{connecting(t, "57P03"), retry.Connection, false},
		{answer("42P01", "ERROR"), retry.No, true},
		{fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), retry.Connection, false},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, retry.Connection, false},
		{context.DeadlineExceeded, retry.Connection, false},
		{errors.New("something else"), retry.No, false},
	} {
		if class, refused := retry.Of(c.err), retry.Refused(c.err); class != c.class || refused != c.refused {
			t.Errorf("%v: class %d, refused %v; want %d, %v", c.err, class, refused, c.class, c.refused)
		}
	}
}

func TestSessionsThatAreToBeLeft(t *testing.T) {
	for _, c := range []struct {
		err             error
		elsewhere, only bool
	}{
		{answer("26000", "ERROR"), true, true},
		{answer("57P05", "FATAL"), true, true},
		{answer("25P03", "FATAL"), true, true},
		{answer("0A000", "ERROR"), true, false},
		{&pgconn.PgError{Code: "0A000", SeverityUnlocalized: "ERROR", Routine: "RevalidateCachedQuery"}, true, true},
		{&pgconn.PgError{Code: "0A000", SeverityUnlocalized: "ERROR", Routine: "RewriteQuery"}, false, false},
		{answer("42703", "ERROR"), true, false},
		{answer("XX000", "ERROR"), true, false},
		{raisedAs("XX000"), false, false},
		{answer("25P04", "FATAL"), false, false}, // it may have committed
		{answer("57P01", "FATAL"), false, false},
		{answer("42501", "ERROR"), false, false},
		{answer("22P05", "ERROR"), false, false},
		{connecting(t, "57P05"), false, false},
		{io.EOF, false, false},
		{nil, false, false},
	} {
		if elsewhere, only := retry.Elsewhere(c.err), retry.SessionOnly(c.err); elsewhere != c.elsewhere || only != c.only {
			t.Errorf("%v: elsewhere %v, session only %v; want %v, %v", c.err, elsewhere, only, c.elsewhere, c.only)
		}
	}
}

func TestWaitsStayWithinTheirBounds(t *testing.T) {
	for class, bounds := range map[retry.Class][2]time.Duration{
		retry.Contention: {50 * time.Millisecond, 5 * time.Second},
		retry.Connection: {3 * time.Second, 120 * time.Second},
	} {
		waits := retry.Backoff(class)
		first := waits.NextBackOff()
		if first < bounds[0]/2 || first > 2*bounds[0] {
			t.Errorf("class %d begins with %s", class, first)
		}
		last := first
		for range 10_000 { // it never gives up
			last = waits.NextBackOff()
		}
		if last < bounds[1]/2 || last > 2*bounds[1] {
			t.Errorf("class %d ends with %s", class, last)
		}
	}
}
