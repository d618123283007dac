//go:build unix

package taskfile

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxLinks is how many links may lead to one another.
const maxLinks = 40

// rights collects what users other than this one and root may change among the files
// that the worker runs, and among the folders on the way to them.
type rights struct {
	uid   uint32
	found []string
}

func newRights() *rights { return &rights{uid: uint32(os.Geteuid())} }

// look looks at an absolute path: at what it names, and at every folder and link on
// the way, as the system takes it. What is no longer there, or cannot be looked at,
// is for others to report.
func (r *rights) look(name string) {
	current, pending := "/", strings.Split(name, "/")
	r.check(current, true)
	for links := 0; len(pending) > 0; {
		part := pending[0]
		pending = pending[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			current = filepath.Dir(current)
			continue
		}
		next := filepath.Join(current, part)
		info := r.check(next, true)
		switch {
		case info == nil:
			return
		case info.Mode()&fs.ModeSymlink == 0:
			current = next
			continue
		}
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			current = "/"
		}
		pending = append(strings.Split(target, "/"), pending...)
	}
	r.check(current, false)
}

// check looks at one file, folder or link, which may be on the way to another.
func (r *rights) check(name string, onTheWay bool) fs.FileInfo {
	info, err := os.Lstat(name)
	if err != nil {
		return nil
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case !ok:
	case stat.Uid != 0 && stat.Uid != r.uid:
		r.note("%s belongs to %s", name, userName(stat.Uid))
	case mode&fs.ModeSymlink != 0: // has no rights of its own
	case onTheWay && mode&fs.ModeSticky != 0: // nobody can replace what belongs to us
	case mode&0o002 != 0:
		r.note("%s can be written by everybody (mode %04o)", name, mode.Perm())
	case mode&0o020 != 0 && !ownGroupAlone(stat.Uid, stat.Gid):
		r.note("%s can be written by its group %s (mode %04o)", name, groupName(stat.Gid), mode.Perm())
	}
	return info
}

func (r *rights) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !slices.Contains(r.found, line) {
		r.found = append(r.found, line)
	}
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return "the user " + u.Username
	}
	return "the user with the id " + id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// ownGroupAlone reports whether a group is that of one user alone, as many systems
// give one to each: files are group-writable there as a matter of course. For root,
// whose mistakes cost most, no group is.
func ownGroupAlone(uid, gid uint32) bool {
	if uid == 0 {
		return false
	}
	id := strconv.FormatUint(uint64(gid), 10)
	owner, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil || owner.Gid != id {
		return false
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		return false
	}
	alone := false
	for line := range strings.Lines(string(groups)) {
		fields := strings.Split(strings.TrimSpace(line), ":") // name:password:gid:members
		if len(fields) < 4 || fields[2] != id {
			continue
		}
		if fields[0] != owner.Username || fields[3] != "" && fields[3] != owner.Username {
			return false
		}
		alone = true
	}
	return alone
}
