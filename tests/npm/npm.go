// Package npm installs what a package-lock.json pins, for tests that need programs from
// npm.
//
// A manifest and its lock file come in; a folder with node_modules goes out. The one thing
// not to break: a folder is complete or does not exist, and nothing changes it afterwards.
package npm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const installTimeout = 5 * time.Minute

// Packages are what to install.
type Packages struct {
	Manifest []byte // package.json
	LockFile []byte // package-lock.json
	// Arguments are added to npm's.
	Arguments []string
	// Finish, if not nil, completes what npm has installed into a folder.
	Finish func(dir string) error
}

// Name is one for exactly this lock file: another one has another name.
func (p Packages) Name() string {
	sum := sha256.Sum256(p.LockFile)
	return hex.EncodeToString(sum[:8])
}

// Install makes dir, unless it is there.
func (p Packages) Install(dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("npm is not installed: %w", err)
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("looking for installed packages: %w", err)
	}
	return p.installInto(dir, npm)
}

// installInto fills a folder next to dir and renames it when it is complete.
// Several processes may do so at once: the first rename wins, and the others
// use what it made.
func (p Packages) installInto(dir, npm string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the cache folder: %w", err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		return fmt.Errorf("making a folder to install into: %w", err)
	}
	defer os.RemoveAll(temp)
	for name, content := range map[string][]byte{"package.json": p.Manifest, "package-lock.json": p.LockFile} {
		if err := os.WriteFile(filepath.Join(temp, name), content, 0o644); err != nil {
			return fmt.Errorf("installing packages: %w", err)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	args := append([]string{
		"ci", "--ignore-scripts", "--engine-strict=false", "--no-audit", "--no-fund", "--loglevel=error",
		"--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000", // not a minute, to find out being offline
	}, p.Arguments...)
	cmd := exec.CommandContext(ctx, npm, args...)
	cmd.Dir = temp
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, strings.TrimSpace(output.String()))
	}
	if p.Finish != nil {
		if err := p.Finish(temp); err != nil {
			return err
		}
	}

	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("installing packages: %w", err)
	}
	err = os.Rename(temp, dir)
	if _, statErr := os.Stat(dir); err != nil && statErr != nil {
		return fmt.Errorf("putting installed packages in place: %w", err)
	}
	return nil
}
