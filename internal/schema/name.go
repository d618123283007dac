// Package schema holds the name of the PostgreSQL schema that the queue lives in, and
// is the one place where SQL written for the default name is rendered for another.
//
// Migrations and queries name the schema literally, graphile_worker, so that they are
// plain SQL for sqlc, psql and editors. Such a text comes in; the same text for the
// configured schema goes out. Two rules keep the rendering safe, and the texts in db/
// must follow them: the bare word graphile_worker appears only where an identifier
// stands (never in a single-quoted string or a comment), and dollar quotes around such
// a text use the tag $gw$.
package schema

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Default is the schema that Graphile Worker uses when none is configured.
const Default = "graphile_worker"

// maxBytes is PostgreSQL's NAMEDATALEN - 1. The server cuts longer names with
// a notice only, and two long names could then meet in one schema.
const maxBytes = 63

const bodyTag = "$gw$"

var defaultWord = regexp.MustCompile(`\b` + Default + `\b`)

// Name is a validated schema name. The zero value is the default schema.
type Name struct {
	raw    string
	quoted string
}

// Parse validates a schema name. The empty string is the default schema.
func Parse(raw string) (Name, error) {
	switch {
	case raw == "" || raw == Default:
		return Name{}, nil
	case len(raw) > maxBytes:
		return Name{}, fmt.Errorf("schema name %q has %d bytes: PostgreSQL takes at most %d", raw, len(raw), maxBytes)
	case strings.ContainsRune(raw, 0):
		return Name{}, fmt.Errorf("schema name %q holds a NUL character, which PostgreSQL does not take", raw)
	case !utf8.ValidString(raw):
		return Name{}, fmt.Errorf("schema name %q is not valid UTF-8", raw)
	case strings.HasPrefix(raw, "pg_"):
		return Name{}, fmt.Errorf("schema name %q starts with pg_, which PostgreSQL keeps for itself", raw)
	}
	return Name{raw: raw, quoted: pgx.Identifier{raw}.Sanitize()}, nil
}

// IsDefault reports whether SQL texts can be used as they are written.
func (n Name) IsDefault() bool { return n.raw == "" }

// String returns the name as it stands in the catalog, unquoted.
func (n Name) String() string {
	if n.raw == "" {
		return Default
	}
	return n.raw
}

// Quoted returns the name as an SQL identifier.
func (n Name) Quoted() string {
	if n.raw == "" {
		return Default
	}
	return n.quoted
}

// Render returns sql, written for the default schema, for this schema.
func (n Name) Render(sql string) string {
	if n.raw == "" {
		return sql
	}
	sql = defaultWord.ReplaceAllLiteralString(sql, n.quoted)
	if strings.Contains(n.raw, bodyTag) {
		sql = n.retagBodies(sql)
	}
	return sql
}

// retagBodies gives function bodies a dollar quote that the schema's name,
// which stands inside them, cannot end.
func (n Name) retagBodies(sql string) string {
	tag := bodyTag
	for i := 0; strings.Contains(n.raw, tag); i++ {
		tag = fmt.Sprintf("$gw%d$", i)
	}
	const hold = "\x00"
	sql = strings.ReplaceAll(sql, n.quoted, hold)
	sql = strings.ReplaceAll(sql, bodyTag, tag)
	return strings.ReplaceAll(sql, hold, n.quoted)
}
