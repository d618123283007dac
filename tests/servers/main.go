// Command servers runs tests against PostgreSQL servers of each major version that gworker
// works on, one after the other:
//
//	go run ./tests/servers                          all versions, the main tests
//	go run ./tests/servers -quick -versions 12,18   those in which servers differ
//	go run ./tests/servers -versions 12,18 ./internal/recovery
//	go run ./tests/servers ./internal/migrate -run TestFresh
//
// Packages come first; everything from the first dash on goes to go test. The servers come
// from npm (see programs); the machine's own are not used.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/gworker/gworker/tests/servers/programs"
)

// mainTests are the packages whose tests talk to a server.
var mainTests = []string{
	".", "./cmd/worker", "./internal/doctor", "./internal/listener", "./internal/migrate", "./internal/recovery",
	"./internal/scheduler", "./internal/statement", "./tests/e2e", "./tests/poolers",
}

// quickTests are those whose outcome depends on the server most: every statement
// and revision once, what is read from the catalogs, and what servers say.
var quickTests = []string{
	"TestFreshInstall", "TestEveryRevisionIsAsListed", "TestTakeOver", "TestHalfWayUpgradesOfRust", "TestInspect",
	"TestLostObjectsAreNamed", "TestLockedJobsStopRevision11", "TestAddJob", "TestAddJobs", "TestAddJobRefuses", "TestManaging",
	"TestRecoverDeadWorkerJobs", "TestManyRunsAtOnce", // migrate
	"TestSweepGivesTheJobsOfADeadWorkerBack", "TestWhichWorkersAreDead", "TestOldLocksAreReset", // recovery
	"TestAHealthyQueueHasNoFinding", "TestTheDoctorOnlyReads", "TestRights", "TestSettingsThatHurt", // doctor
	"TestClaimOrder", "TestOutcomeIsFenced", "TestJobsOfAClaimWhoseAnswerWasLostRun", // scheduler
	"TestAddJobStoresTheWholeSpec", "TestKeyModes", "TestWorkerOnAnySchemaWithoutPreparedStatements", "TestSQLTaskSeesItsJob",
	"TestFailureIsStoredAndRetriedExponentially", "TestNotificationStartsJob", "TestUniqueBeyondCompletion", "TestUniquePayloads", "TestServerThatBecomesReadOnlyIsLeft",
	"TestBreakingMigrationStopsTheWorker", // the worker
	"TestEverythingThrough",               // behind a pooler
}

var quickPackages = []string{
	".", "./internal/doctor", "./internal/migrate", "./internal/recovery", "./internal/scheduler", "./tests/e2e", "./tests/poolers",
}

func main() {
	// Its tests end with it: go test passes the signal on.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("servers", flag.ExitOnError)
	list := flags.String("versions", "", "major versions with commas between them (default: all)")
	quick := flags.Bool("quick", false, "only the tests whose outcome depends on the server most")
	if err := flags.Parse(args); err != nil {
		return err
	}
	versions, err := parse(*list)
	if err != nil {
		return err
	}
	rest := flags.Args()
	switch {
	case *quick && len(rest) > 0:
		return errors.New("-quick chooses the tests by itself: give no packages")
	case *quick:
		rest = append(quickPackages[:len(quickPackages):len(quickPackages)], "-run", "^("+strings.Join(quickTests, "|")+")$")
	case len(rest) == 0 || strings.HasPrefix(rest[0], "-"):
		rest = append(mainTests[:len(mainTests):len(mainTests)], rest...)
	}
	var failed []string
	for _, version := range versions {
		dir, err := programs.Dir(version)
		if err != nil {
			return err
		}
		fmt.Printf("=== PostgreSQL %d\n", version)
		began := time.Now()
		if err := test(ctx, dir, rest); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("PostgreSQL %d: interrupted", version)
			}
			failed = append(failed, strconv.Itoa(version))
		}
		fmt.Printf("=== PostgreSQL %d took %s\n", version, time.Since(began).Round(time.Second))
	}
	if len(failed) > 0 {
		return fmt.Errorf("the tests failed with PostgreSQL %s", strings.Join(failed, ", "))
	}
	return nil
}

func parse(list string) ([]int, error) {
	if list == "" {
		return programs.Versions(), nil
	}
	var versions []int
	for text := range strings.SplitSeq(list, ",") {
		v, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || v < programs.Oldest || v > programs.Newest {
			return nil, fmt.Errorf("-versions has %q: it can be %d to %d", text, programs.Oldest, programs.Newest)
		}
		versions = append(versions, v)
	}
	if len(versions) == 0 {
		return nil, errors.New("-versions is empty")
	}
	return versions, nil
}

func test(ctx context.Context, dir string, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "DATABASE_URL=") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, "GWORKER_POSTGRES_BIN="+dir, "GWORKER_HEAVY=1")
	return cmd.Run()
}
