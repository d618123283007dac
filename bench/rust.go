package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/tests/cargo"
)

// rustVersion is the one that rust/Cargo.toml pins.
const rustVersion = "0.14.1"

//go:embed rust/Cargo.toml rust/Cargo.lock rust/src/*.rs
var rustSources embed.FS

func rustProgram() (cargo.Program, error) {
	sources, err := fs.Sub(rustSources, "rust")
	// sqlx, by which the crate talks to PostgreSQL, needs this version.
	return cargo.Program{Name: "gworker-bench-rust", Sources: sources, Major: 1, Minor: 94}, err
}

// buildRust builds the program once, into the user's cache folder, and returns
// its path.
var buildRust = sync.OnceValues(func() (string, error) {
	program, err := rustProgram()
	if err != nil {
		return "", err
	}
	if _, there, err := program.Built(); err == nil && !there {
		if _, err := program.Find(); err == nil {
			tell("building the Rust worker, which takes minutes the first time")
		}
	}
	return program.Build()
})

func rustSide(b *bench, _ order) (*exec.Cmd, error) { return rustCommand(b.scratch) }

func rustCommand(scratch string) (*exec.Cmd, error) {
	path, err := buildRust()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.Dir = scratch
	cmd.Env = []string{"HOME=" + scratch, "TZ=UTC"}
	return cmd, nil
}

func rustVersionOf() (string, error) {
	_, err := buildRust()
	return rustVersion, err
}

// rustGraphile is Graphile Worker's tables as the crate's own migrations make
// them: with its revisions 21 and 22, which the others do not know.
type rustGraphile struct{ graphile }

func (rustGraphile) name() string { return "Graphile Worker RS" }

func (rustGraphile) migrate(ctx context.Context, pool *pgxpool.Pool) error {
	path, err := buildRust()
	if err != nil {
		return err
	}
	line, err := json.Marshal(order{Peer: "rust", Role: "migrate", URL: pool.Config().ConnString()})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(append(line, '\n'))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the crate's migrations: %w: %s", err, strings.TrimSpace(output.String()))
	}
	return nil
}
