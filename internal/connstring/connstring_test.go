package connstring_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gworker/gworker/internal/connstring"
)

// No error has a part of the string: the parts that may not be seen are in capitals.
func TestNothingIsQuoted(t *testing.T) {
	services := filepath.Join(t.TempDir(), "SERVICES")
	if err := os.WriteFile(services, []byte("[other]\nhost=h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ s, says string }{
		{"postgres://U:CORRECT%HORSE@HOST/DB", "%25"},
		{"postgres://U:CORRECT%ZZHORSE@HOST/DB", "%25"},
		{"postgres://U:CORRECT/HORSE@HOST/DB", "%2F"},
		{"postgres://U:123/HORSE@HOST/DB", "@ after"},
		{"postgres://U:CORRECT@HORSE@HOST/DB", "@ after"},
		{"postgresql://U:CORRECT@HORSE/BATTERY@HOST/DB", "@ after"},
		{"postgres://U:COR:RECT/HORSE@HOST", "%"},
		{"postgres://[HORSE", "postgres://user"},
		{"postgres://U:P@HOST:PORT/DB", "port"},
		{"postgres://U:P@HOST:99999/DB", "port"},
		{"postgres://U:P@HOST/DB?sslmode=BATTERY", "TLS"},
		{"postgres://U:P@HOST/DB?sslmode=verify-full&sslrootcert=/STAPLE", "TLS"},
		{"postgres://U:P@HOST/DB?connect_timeout=BATTERY&target_session_attrs=any", "connect_timeout"},
		{"postgres://U:P@HOST/DB?target_session_attrs=BATTERY", "target_session_attrs"},
		{"postgres://U:P@HOST/DB?pool_max_conns=BATTERY", "pool_max_conns"},
		{"postgres://U:P@HOST/DB?pool_max_conn_lifetime=BATTERY", "pool_max_conn_lifetime"},
		{"postgres://U:P@HOST/DB?channel_binding=BATTERY", "channel_binding"},
		{"postgres://U:P@HOST/DB?require_auth=BATTERY", "require_auth"},
		{"postgres://U:P@HOST/DB?min_protocol_version=BATTERY", "min_protocol_version"},
		{"postgres://U:P@HOST/DB?default_query_exec_mode=BATTERY", "default_query_exec_mode"},
		{"host=HOST password=CORRECT HORSE BATTERY", "keyword=value"},
		{"host=HOST password='CORRECT HORSE", "keyword=value"},
		{"HORSEBATTERY", "keyword=value"},
		{"U:SECRET@HOST/DB", "keyword=value"},
		{"mysql://U:SECRET@HOST/DB", "keyword=value"},
		{"postgres:/U:SECRET@HOST/DB", "keyword=value"},
		{"host=HOST password=`: HORSE", "keyword=value"},
		{"host=HOST port=BATTERY", "port"},
		{"host=A,B,C port=1,2", "as many ports"},
		{"service=STAPLE servicefile=" + services, "service"},
		{"service=STAPLE servicefile=/NOWHERE", "service"},
		{"host=HOST sslmode=BATTERY", "TLS"},
	} {
		_, err := connstring.Parse(c.s)
		if err == nil {
			t.Errorf("%s parses", c.s)
			continue
		}
		text := strings.NewReplacer("TLS", "", "PG* variable", "", "PGSERVICE", "", "URL", "", "%2F", "2f", "%3A", "3a", "%3F", "3f").Replace(err.Error())
		if !strings.Contains(err.Error(), c.says) || text != strings.ToLower(text) {
			t.Errorf("%s: %v; want %q, and nothing in capitals", c.s, err, c.says)
		}
	}
}

func TestWhatParses(t *testing.T) {
	for s, host := range map[string]string{
		"postgres://u:p@h/db":                                    "h",
		"postgres://u:p%40ss%2Fword@h/db":                        "h",
		"postgres://u:p?ss@h/db":                                 "h",
		"postgres://h/db?application_name=a@b":                   "h",
		"postgres://u@h/db?options=-c%20x%3D1@2":                 "h",
		"postgres://h/db?user=a@b&password=x/y@z":                "h",
		"postgres://u:p@/db?host=/var/run/postgresql":            "/var/run/postgresql",
		"host=h password='a b@c'":                                "h",
		"host=h user=a@b dbname=x@y password=ab sslmode=disable": "h",
	} {
		config, err := connstring.Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		} else if config.ConnConfig.Host != host {
			t.Errorf("%s: host %q", s, config.ConnConfig.Host)
		}
	}
}

// TestSpaceAroundIsNoPartOfIt: secrets come from files, whose last line ends.
func TestSpaceAroundIsNoPartOfIt(t *testing.T) {
	for s, want := range map[string]string{
		"postgres://u:p@h/db\n":                    "db p",
		" \tpostgres://u:p@h/db \r\n":              "db p",
		"postgres://u:p@h/db?sslmode=disable\r\n":  "db p",
		"host=h dbname=db password=p\n":            "db p",
		"\n host=h dbname=db password=p\\ \n":      "db p ",
		"host=h dbname=db password='p '\n":         "db p ",
		"\npostgres://u:p@h/db?connect_timeout=5 ": "db p",
	} {
		config, err := connstring.Parse(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if got := config.ConnConfig.Database + " " + config.ConnConfig.Password; got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
