// Package gworkertest tests programs that use gworker:
//
//   - [Database] and [Pool] give a test its own database with the queue's schema in it;
//     a [Template] adds the program's own tables.
//   - [Run] runs a task on a payload without any database.
//   - [JobsIn] and [JobsInSQL] look for jobs inside the transaction that adds them, or
//     outside.
//   - [StartWorker] runs a real worker for the length of a test, and waits for jobs
//     without sleeping.
//
// # PostgreSQL for tests
//
// The first test of a process that asks for a database starts a server. Its programs
// are found on the machine (on the PATH and where Linux distributions, Homebrew and
// installers put them), or downloaded. If GWORKER_TEST_DATABASE_URL or else DATABASE_URL
// is set, the server that it names is used; its role must be allowed to create
// databases. GWORKER_TEST_DATABASE_URL=local starts a server even if DATABASE_URL is
// set.
//
// A server that the process starts listens on a socket in a folder that no other account
// can enter (on Windows on the loopback interface). It ends with the test process,
// however that ends, and its data with it; no TestMain is needed for that. On Windows
// nothing ends it after the process, so a TestMain should call [StopServer].
//
// Each test's database is dropped with the test. On a server that was running before,
// only those databases (their names begin with gworker_test_) are made and dropped; a
// test process that is killed leaves its databases there.
//
// # What is promised
//
// Tests can run in parallel: they share the server and nothing else. No function sleeps
// and hopes. Functions that take a testing.TB end the test by Fatal when they cannot do
// what they are asked to, so call them from the test's own goroutine; what they start,
// they end by Cleanup.
package gworkertest
