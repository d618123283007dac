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

	"github.com/gworker/gworker/internal/retry"
)

func answer(code, severity string) error {
	return fmt.Errorf("statement X: %w", &pgconn.PgError{Code: code, Severity: severity, SeverityUnlocalized: severity})
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
		{answer("23505", "ERROR"), retry.No, true},
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
