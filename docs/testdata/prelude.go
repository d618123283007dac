// Package prelude declares what the Go snippets of the documentation use without
// declaring it. It is compiled together with each of them; a snippet that declares
// a name itself takes its own. See ../snippets_test.go.
package prelude

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker"
)

// On many pages.
var (
	ctx         context.Context
	err         error
	databaseURL string
	pool        *pgxpool.Pool
	tx          pgx.Tx
	client      *gworker.Client
	worker      *gworker.Worker
	spec        gworker.JobSpec
	email       Email
)

type Email struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
}

func send(ctx context.Context, email Email) error { return nil }

func sendEmail(ctx context.Context, job *gworker.Job[Email]) error { return nil }

// tasks.md declares it in one snippet and uses it in others.
var SendEmail = gworker.TaskDefinition[Email]{Name: "send_email"}

// cancelling.md
type File struct{}

func lines(File) iter.Seq[string] { return nil }
func removeWhatIsThere(File)      {}

// cron.md
type RegionReport struct {
	Region string `json:"region"`
	gworker.CronPayload
}

// events.md
type counter struct{}

func (counter) WithLabelValues(...string) counter { return counter{} }
func (counter) Inc()                              {}

var failures counter

// flags.md
type rateLimiter struct{}

func (rateLimiter) Exhausted(context.Context) ([]string, error) { return nil, nil }

var limiter rateLimiter

func callAPI(ctx context.Context, job *gworker.Job[http.Header]) error { return nil }

// job-keys.md
type Document struct{ ID int64 }

var (
	reminder    struct{}
	appointment struct {
		time.Time
		ID int64
	}
)

// listener.md
func reload(context.Context)          {}
func refresh(context.Context, string) {}

// queues.md
type Order struct{ ID int64 }

var (
	change    struct{}
	accountID int64
)

func pack(context.Context, Order) error { return nil }

// tasks.md
type Payment struct{}

var (
	job *gworker.Job[Payment]
	d   time.Duration
)

func charge(ctx context.Context, job *gworker.Job[Payment]) error { return nil }

func observe(task string, took time.Duration, err error) {}

// testing.md
type Welcome struct{ Email string }

var (
	t            *testing.T
	errNoAddress = errors.New("no address")
	payload      Welcome
)

func welcome(ctx context.Context, job *gworker.Job[Welcome]) error { return nil }

func migrateMyTables(ctx context.Context, url string) error { return nil }

func signUp(ctx context.Context, tx pgx.Tx, client *gworker.Client, email string) error { return nil }

// unique.md
var payment struct{ EventID string }

// time.md
type clock struct{}

func (clock) Now() time.Time { return time.Time{} }

var simulated clock
