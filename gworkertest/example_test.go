package gworkertest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gworker/gworker"
	"github.com/gworker/gworker/gworkertest"
)

// exampleT stands for the *testing.T of a test, which examples do not have.
type exampleT struct {
	testing.TB // nil: nothing else is called
	cleanups   []func()
}

func (t *exampleT) Helper()                     {}
func (t *exampleT) Name() string                { return "TestExample" }
func (t *exampleT) Context() context.Context    { return context.Background() }
func (t *exampleT) Logf(string, ...any)         {}
func (t *exampleT) Errorf(f string, arg ...any) { fmt.Printf(f+"\n", arg...) }
func (t *exampleT) Fatal(args ...any)           { log.Panic(args...) }
func (t *exampleT) Fatalf(f string, arg ...any) { log.Panicf(f, arg...) }
func (t *exampleT) Cleanup(do func())           { t.cleanups = append(t.cleanups, do) }
func (t *exampleT) end() {
	for _, do := range slices.Backward(t.cleanups) {
		do()
	}
}

type Welcome struct {
	Email string `json:"email"`
}

var errNoAddress = errors.New("no address")

func welcome(_ context.Context, job *gworker.Job[Welcome]) error {
	if job.Payload.Email == "" {
		return errNoAddress
	}
	return nil
}

// signUp is the code under test: it adds a job in its caller's transaction.
func signUp(ctx context.Context, tx pgx.Tx, client *gworker.Client, email string) error {
	_, err := client.WithTx(tx).AddJob(ctx, gworker.JobSpec{Task: "welcome", Payload: Welcome{Email: email}})
	return err
}

// A handler is run on a payload, without a database.
func ExampleRun() {
	// func TestWelcome(t *testing.T) {
	t := &exampleT{}
	defer t.end()

	task := gworker.NewTask("welcome", welcome)
	r := gworkertest.Run(t.Context(), t, task, gworkertest.Call{Payload: Welcome{Email: "ada@example.com"}})
	fmt.Println(r.Outcome)

	r = gworkertest.Run(t.Context(), t, task, gworkertest.Call{
		Job: gworker.JobRow{Attempts: 25, MaxAttempts: 25}, // the last attempt
	})
	fmt.Println(r.Outcome, errors.Is(r.Err, errNoAddress))
	// Output:
	// completed
	// permanently failed true
}

// A job is looked for in the transaction that adds it, before it commits.
func ExampleJobs_Require() {
	// func TestSignUp(t *testing.T) {
	t := &exampleT{}
	defer t.end()

	pool := gworkertest.Pool(t)
	client, err := gworker.NewClient(gworker.ClientConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())

	if err := signUp(t.Context(), tx, client, "ada@example.com"); err != nil {
		t.Fatal(err)
	}
	job := gworkertest.JobsIn(tx).Require(t, gworker.JobSpec{
		Task:    "welcome",
		Payload: Welcome{Email: "ada@example.com"},
	})
	gworkertest.JobsIn(tx).RequireNone(t, gworker.JobSpec{Task: "send_invoice"})
	gworkertest.JobsIn(pool).RequireNone(t, gworker.JobSpec{Task: "welcome"}) // not committed

	fmt.Println(job.Task, job.MaxAttempts)
	// Output: welcome 25
}

// The same for database/sql, with any PostgreSQL driver.
func ExampleJobsInSQL() {
	t := &exampleT{}
	defer t.end()

	url := gworkertest.Database(t)
	client, err := gworker.NewClient(gworker.ClientConfig{DatabaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()

	if _, err := client.WithSQLTx(tx).AddJob(t.Context(), gworker.JobSpec{Task: "welcome"}); err != nil {
		t.Fatal(err)
	}
	gworkertest.JobsInSQL(tx).Require(t, gworker.JobSpec{Task: "welcome"})
	gworkertest.JobsInSQL(db).RequireNone(t, gworker.JobSpec{Task: "welcome"})

	fmt.Println("added in the transaction, and not outside")
	// Output: added in the transaction, and not outside
}

// A worker runs for the length of the test, and the test waits for a job.
func ExampleStartWorker() {
	// func TestWelcomeRuns(t *testing.T) {
	t := &exampleT{}
	defer t.end()

	worker := gworkertest.StartWorker(t, gworker.Config{
		Tasks: []gworker.Task{gworker.NewTask("welcome", welcome)},
	})
	good, err := worker.Client().AddJob(t.Context(), gworker.JobSpec{Task: "welcome", Payload: Welcome{Email: "ada@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := worker.Client().AddJob(t.Context(), gworker.JobSpec{Task: "welcome"})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(worker.WaitJob(t.Context(), good.ID).Outcome)
	r := worker.WaitRun(t.Context(), bad.ID) // this run only: it is tried again later
	fmt.Println(r.Outcome, r.Err)
	// Output:
	// completed
	// failed no address
}

// Tests copy a database that has the program's own tables, too.
func ExampleTemplate() {
	t := &exampleT{}
	defer t.end()

	// A variable of the package, so that Setup runs once for all its tests.
	databases := gworkertest.Template{Setup: func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "create table users (email text primary key)")
		return err
	}}

	var users int
	if err := databases.Pool(t).QueryRow(t.Context(), "select count(*) from users").Scan(&users); err != nil {
		t.Fatal(err)
	}
	fmt.Println(users, "users")
	// Output: 0 users
}
