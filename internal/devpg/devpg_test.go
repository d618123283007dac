package devpg_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/gworker/gworker/internal/devpg"
	"github.com/gworker/gworker/internal/testdb"
)

// asHolder makes this test program a process that holds a server.
const asHolder = "GWORKER_DEVPG_HOLDER"

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(asHolder); ok {
		hold(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// hold starts a server, tells its URL, and waits to be killed.
func hold(dir string) {
	server, err := devpg.Start(context.Background(), devpg.Options{DataDir: dir, Fast: true, IgnoreEnvironment: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(server.URL("postgres"))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startHolder returns another process with a server, and its URL.
func startHolder(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asHolder+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return cmd, strings.TrimSpace(line)
}

func begin(t *testing.T, o devpg.Options) *devpg.Server {
	t.Helper()
	o.Fast, o.IgnoreEnvironment = true, true
	server, err := devpg.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}

func exec1(t *testing.T, url, sql string) {
	t.Helper()
	conn := connect(t, url)
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query1(t *testing.T, url, sql string) (found string) {
	t.Helper()
	conn := connect(t, url)
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(&found); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return found
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// gone waits until nobody answers at a URL.
func gone(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, url)
		if ctx.Err() != nil {
			t.Fatal("the server goes on")
		}
		if err != nil && !strings.Contains(err.Error(), "57P03") {
			return
		}
		if err == nil {
			conn.Close(ctx)
		}
	}
}

func TestServerStopsCrashesAndKeepsWhatWasCommitted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	server := begin(t, devpg.Options{Database: "app", Settings: map[string]string{"max_connections": "17"}})
	u := server.URL("app")
	exec1(t, u, "create table seen (n text)")
	if got := query1(t, u, "show max_connections"); got != "17" {
		t.Errorf("max_connections is %s", got)
	}
	for i, stop := range []func(context.Context) error{server.Stop, server.Crash} {
		exec1(t, u, fmt.Sprintf("insert into seen values (%d)", i))
		if err := stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := stop(t.Context()); err != nil {
			t.Errorf("stopping twice: %v", err)
		}
		if conn, err := pgx.Connect(t.Context(), u); err == nil {
			conn.Close(t.Context())
			t.Fatal("a stopped server answers")
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := query1(t, u, "select string_agg(n, ',' order by n) from seen"); got != "0,1" {
		t.Errorf("rows after restarts: %s", got)
	}
}

func TestServerListensOnLoopbackOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	server := begin(t, devpg.Options{})
	got := query1(t, server.URL("postgres"),
		"select current_setting('listen_addresses') || '|' || current_setting('unix_socket_directories')")
	if got != "127.0.0.1|" {
		t.Errorf("listens on %s", got)
	}
}

// A private server is out of reach for every other account.
func TestPrivateServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	long := filepath.Join(testdb.OpenDir(t), strings.Repeat("so very long ", 7))
	for name, dir := range map[string]string{
		"temporary": "", "kept": filepath.Join(testdb.OpenDir(t), `with a "space"+&%41`), "comma": filepath.Join(testdb.OpenDir(t), "a,b"), "long": long,
	} {
		t.Run(name, func(t *testing.T) {
			o := devpg.Options{DataDir: dir, Private: true, Database: "app"}
			server := begin(t, o)
			listens := query1(t, server.URL("app"), "select current_setting('listen_addresses') || '|' || current_setting('unix_socket_directories')")
			address, socket, _ := strings.Cut(listens, "|")
			socket = strings.ReplaceAll(strings.Trim(socket, `"`), `""`, `"`)
			info, err := os.Stat(socket)
			if err != nil || address != "" || info.Mode().Perm() != 0o700 {
				t.Fatalf("listens on %s: %v (%v)", listens, info, err)
			}
			if os.Geteuid() == 0 {
				other := exec.Command("/bin/ls", socket)
				other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
				if out, err := other.CombinedOutput(); err == nil {
					t.Errorf("another account sees %s", out)
				}
			}
			if dir != "" {
				second := begin(t, o)
				if second.URL("app") != server.URL("app") || !second.External() {
					t.Errorf("a second one has %s", second.URL("app"))
				}
			}
			for _, stop := range []func(context.Context) error{server.Stop, server.Crash} {
				if err := stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				query1(t, server.URL("app"), "select 'there'")
			}
			if err := server.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(socket); name != "kept" && !os.IsNotExist(err) {
				t.Errorf("%s is left (%v)", socket, err)
			}
		})
	}
}

func TestPrivateServerRefusesAFolderOfOthers(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"writable":         func(dir string) error { return os.Chmod(dir, 0o777) },
		"of another owner": func(dir string) error { return os.Chown(dir, 54321, -1) },
	} {
		dir := testdb.OpenDir(t)
		if err := change(dir); err != nil {
			t.Skip(err) // not root
		}
		server, err := devpg.Start(t.Context(), devpg.Options{DataDir: dir, Private: true, IgnoreEnvironment: true})
		if err == nil {
			server.Close(t.Context())
			t.Fatalf("%s: started", name)
		}
		if !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDataDirIsKept(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := filepath.Join(testdb.OpenDir(t), "new", "folder")
	var told []string
	o := devpg.Options{DataDir: dir, Database: `odd "name"`, Progress: func(s string) { told = append(told, s) }}
	first := begin(t, o)
	u := first.URL(o.Database)
	exec1(t, u, "create table kept ()")
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := begin(t, o)
	if second.URL(o.Database) != u {
		t.Errorf("the URL changed from %s to %s", u, second.URL(o.Database))
	}
	exec1(t, u, "drop table kept")
	if len(told) != 1 || !strings.Contains(told[0], dir) {
		t.Errorf("progress: %q", told)
	}
}

func TestAnotherProcessRunsTheSameData(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := testdb.OpenDir(t)
	holder, u := startHolder(t, dir)
	server := begin(t, devpg.Options{DataDir: dir})
	if server.URL("postgres") != u || !server.External() {
		t.Fatalf("got %s, want the server that runs: %s", server.URL("postgres"), u)
	}
	if err := server.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	query1(t, u, "select 'still there'")
	if err := server.Restart(t.Context()); err == nil {
		t.Error("restarted a server that another process runs")
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, u) // until the watchdog has told it to stop, it is as good as any
	server = begin(t, devpg.Options{DataDir: dir})
	query1(t, server.URL("postgres"), "select 'there'")
}

func TestServerEndsWithAKilledProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	holder, u := startHolder(t, "")
	data := query1(t, u, "show data_directory")
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, u)
	// The watchdog takes its data away.
	deadline := time.Now().Add(time.Minute)
	for ; ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Dir(data)); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is left", filepath.Dir(data))
		}
	}
}

func TestSweepLeavesOthersAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	first := begin(t, devpg.Options{})
	begin(t, devpg.Options{})
	query1(t, first.URL("postgres"), "select 'still there'")
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin(t, devpg.Options{})
	if err := first.Restart(t.Context()); err != nil {
		t.Errorf("its data is gone: %v", err)
	}
}

func TestManyStartOnOneFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := testdb.OpenDir(t)
	var wg sync.WaitGroup
	servers := make([]*devpg.Server, 3)
	for i := range servers {
		wg.Go(func() {
			var err error
			servers[i], err = devpg.Start(t.Context(), devpg.Options{DataDir: dir, Fast: true, IgnoreEnvironment: true, Database: "app"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	own := 0
	for _, server := range servers {
		if server == nil {
			continue
		}
		query1(t, server.URL("app"), "select 'there'")
		if !server.External() {
			own++
			defer server.Close(context.Background())
		}
	}
	if own != 1 {
		t.Errorf("%d of them started a server", own)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	foreign := testdb.OpenDir(t)
	if err := os.WriteFile(filepath.Join(foreign, "PG_VERSION"), []byte("15\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := testdb.OpenDir(t)
	if err := os.MkdirAll(filepath.Join(old, "pgdata"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "pgdata", "PG_VERSION"), []byte("9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(testdb.OpenDir(t), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		options devpg.Options
		says    string
	}{
		"another cluster": {devpg.Options{DataDir: foreign}, "choose another folder"},
		"old data":        {devpg.Options{DataDir: old}, "made by PostgreSQL 9"},
		"bad setting":     {devpg.Options{Settings: map[string]string{"shared_buffers": "lots"}}, "shared_buffers"},
	}
	if os.Geteuid() == 0 {
		cases["closed to the account"] = struct {
			options devpg.Options
			says    string
		}{devpg.Options{DataDir: filepath.Join(private, "data")}, "choose a folder"}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.options.IgnoreEnvironment = true
			server, err := devpg.Start(t.Context(), c.options)
			if err == nil {
				server.Close(t.Context())
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error does not say %q: %v", c.says, err)
			}
		})
	}
}

func TestEnvironmentNamesTheServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	running := begin(t, devpg.Options{})
	u, err := url.Parse(running.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]string{
		"URL":       running.URL("postgres"),
		"key=value": fmt.Sprintf("host=%s port=%s user=postgres sslmode=disable dbname=postgres", u.Hostname(), u.Port()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DATABASE_URL", env)
			database := "it's " + name
			server, err := devpg.Start(t.Context(), devpg.Options{Database: database})
			if err != nil {
				t.Fatal(err)
			}
			if got := query1(t, server.URL(database), "select current_database()"); got != database {
				t.Errorf("connected to %q", got)
			}
			if err := server.Close(t.Context()); err != nil || !server.External() {
				t.Errorf("Close: %v; external: %v", err, server.External())
			}
			query1(t, running.URL("postgres"), "select 'still there'")
		})
	}
}
