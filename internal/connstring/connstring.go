// Package connstring parses connection strings, and reports errors in them without
// quoting any part of them.
//
// A string in URL or keyword form comes in; a pool's configuration or an error goes
// out. The one thing not to break: a string that cannot be parsed may be a password
// from any point on, so no error contains a part of it; each is one of the fixed texts
// in this file. Nor may a string be accepted in which a part of the password would pass
// for the host or the database, since those are named in later errors.
package connstring

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	encoding = "in a password, / is written %2F, @ is %40, : is %3A, ? is %3F, # is %23 and % is %25"

	notURL      = "it does not read as postgres://user:password@host:port/database?option=value: " + encoding
	strayAt     = "it has an @ after the one before the host: " + encoding
	badPort     = "its port is not a number from 1 to 65535: in a URL, the reason may be that " + encoding
	notKeywords = "it is neither a URL, postgres://..., nor a list of keyword=value: " +
		"values with spaces are quoted, as in password='a b'"
	noService = "its service, or PGSERVICE, is not in the service file, or that file cannot be read"
	badTLS    = "its TLS settings, or those of PG* variables, cannot be used: check sslmode, sslnegotiation, and whether the files of " +
		"sslrootcert, sslcert and sslkey exist and are certificates and keys"
	unknown = "it cannot be parsed"
)

// reasons are pgx's messages and ours.
var reasons = []struct{ theirs, ours string }{
	{"failed to parse as URL", notURL},
	{"failed to parse as keyword/value", notKeywords},
	{"failed to read service", noService},
	{"failed to configure TLS", badTLS},
	{"could not match", "it has not as many ports as hosts"},
	{"invalid port", badPort},
}

// settings are those whose values pgx checks.
var settings = []string{
	"sslcertmode", "connect_timeout", "target_session_attrs", "min_protocol_version", "max_protocol_version",
	"channel_binding", "require_auth", "statement_cache_capacity", "description_cache_capacity",
	"default_query_exec_mode", "pool_max_conn_lifetime_jitter", "pool_max_conns", "pool_min_conns",
	"pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period",
	"pool_ping_timeout",
}

// Parse parses a connection string as for a pool. An empty one means libpq's PG*
// environment variables. White space around it is not part of it: the line break at the
// end of a file that holds a secret would be part of the database's name, or of the last
// option.
func Parse(s string) (*pgxpool.Config, error) {
	s = strings.TrimRight(strings.TrimLeft(s, " \t\r\n"), "\r\n")
	if strings.Contains(s, "://") {
		s = strings.TrimSpace(s) // with keywords, a space may be escaped
	}
	if hasStrayAt(s) {
		return nil, errors.New(strayAt)
	}
	config, err := pgxpool.ParseConfig(s)
	if err != nil {
		return nil, errors.New(reason(err))
	}
	return config, nil
}

// reason is one of our texts for an error of pgx's.
func reason(err error) string {
	// It quotes the string first, in backticks.
	text := err.Error()
	text = text[strings.LastIndex(text, "`: ")+1:]
	for _, r := range reasons {
		if strings.Contains(text, r.theirs) {
			return r.ours
		}
	}
	for _, name := range settings {
		if strings.Contains(text, name) {
			return "its " + name + ", or that of a PG* variable, is not one of the values that it can have"
		}
	}
	return unknown
}

// hasStrayAt reports whether a URL has an @ where a password must have continued.
func hasStrayAt(s string) bool {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	user, host, has := strings.Cut(rest, "@")
	if !has {
		return false
	}
	if strings.Contains(user, "/") {
		// The host ends before the @, unless it is the value of an option.
		path, _, _ := strings.Cut(rest, "?")
		return strings.Contains(path, "@")
	}
	host, _, _ = strings.Cut(host, "?")
	return strings.Contains(host, "@")
}
