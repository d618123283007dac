package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/gworker/gworker/internal/dbgen"
)

// A remark is one of several parts of a finding.
type remark struct {
	severity Severity
	what     string
	help     []string
}

// together makes one finding of remarks, or the given one if there are none.
func together(remarks []remark, why string, otherwise Finding) Finding {
	if len(remarks) == 0 {
		return otherwise
	}
	f := Finding{Why: why}
	var texts []string
	for _, r := range remarks {
		f.Severity = max(f.Severity, r.severity)
		texts = append(texts, r.what)
		f.Help = append(f.Help, r.help...)
	}
	f.What = listed(texts, " ")
	return f
}

// checkEncoding examines the database's encoding, and the default of sessions that ask for
// none. gworker's sessions ask for UTF8, so such a default shows only in the catalog.
func checkEncoding(ctx context.Context, c *checker) (Finding, error) {
	set, err := c.roleSettings(ctx, "client_encoding")
	if err != nil {
		return Finding{}, err
	}
	database := c.settings["server_encoding"].text
	var remarks []remark
	var why []string
	switch database {
	case "UTF8":
	case "SQL_ASCII":
		remarks = append(remarks, remark{Warning, "The database's encoding is SQL_ASCII, which takes any bytes.",
			[]string{"Move the queue to a database with encoding 'UTF8': create database ... template template0 encoding 'UTF8';"}})
		why = append(why, "What a client of another encoding adds is stored as it is, and a worker cannot read it as UTF-8.")
	default:
		remarks = append(remarks, remark{Note, fmt.Sprintf("The database's encoding is %s.", database),
			[]string{"-- A database with encoding 'UTF8' holds every text: create database ... template template0 encoding 'UTF8';"}})
		why = append(why, "Jobs with characters that "+database+" does not have cannot be added (SQLSTATE 22P05), and failure texts with such characters are stored with escapes.")
	}
	before := len(remarks)
	for _, s := range set {
		if !garbles(s.Value, database) {
			continue
		}
		remarks = append(remarks, c.remarkOn(s, fmt.Sprintf("%s have client_encoding %s, unless they ask for another.", c.sessionsOf(s), s.Value)))
	}
	if now := c.settings["client_encoding"]; now.source == "configuration file" && garbles(now.text, database) {
		remarks = append(remarks, remark{Warning, fmt.Sprintf("The server's configuration has client_encoding %s.", now.text),
			[]string{"alter system reset client_encoding; -- or remove it from postgresql.conf", "select pg_reload_conf();"}})
	}
	if len(remarks) > before {
		why = append(why, "gworker's own connections ask for UTF8. A pool of the program's own is refused with another encoding, and other programs may store garbled text.")
	}
	return together(remarks, strings.Join(why, " "), ok(fmt.Sprintf("The database's encoding is %s.", database))), nil
}

// garbles says that a session with the encoding does not pass UTF-8 on unchanged.
func garbles(client, database string) bool {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToLower(client))
	switch name {
	case "utf8", "unicode":
		return false
	case "sqlascii":
		return database != "UTF8" && database != "SQL_ASCII"
	}
	return true
}

func checkIsolation(ctx context.Context, c *checker) (Finding, error) {
	const name = "default_transaction_isolation"
	set, err := c.roleSettings(ctx, name)
	if err != nil {
		return Finding{}, err
	}
	var remarks []remark
	for _, s := range set {
		if !strict(s.Value) {
			continue
		}
		remarks = append(remarks, c.remarkOn(s, fmt.Sprintf("Transactions of %s are %s, unless they ask for another isolation.", lowerFirst(c.sessionsOf(s)), s.Value)))
	}
	if now := c.settings[name]; strict(now.text) {
		switch now.source {
		case "client":
			remarks = append(remarks, remark{Warning, "This connection asks for transactions that are " + now.text + ".",
				[]string{"Remove " + name + " from the connection string, or from PGOPTIONS."}})
		case "configuration file":
			remarks = append(remarks, remark{Warning, "Transactions are " + now.text + " on this server, unless they ask for another isolation.",
				[]string{"alter system reset " + name + "; -- or remove it from postgresql.conf", "select pg_reload_conf();"}})
		}
	}
	return together(remarks, "Statements of adders and workers that meet at one row fail with SQLSTATE 40001 then. gworker tries its own again, which costs "+
		"time; SQL tasks count a failed attempt, and the program has to try its own transactions again, adds in them included.",
		ok("Transactions are "+c.settings[name].text+" by default.")), nil
}

func strict(isolation string) bool {
	switch strings.ToLower(isolation) {
	case "repeatable read", "serializable":
		return true
	}
	return false
}

// roleSettings are the values that are set for all roles, for this role, and for other roles
// that can use the schema.
func (c *checker) roleSettings(ctx context.Context, name string) ([]dbgen.DoctorRoleSettingsRow, error) {
	rows, err := getIn(ctx, c, (*dbgen.Queries).DoctorRoleSettings)
	if err != nil {
		return nil, err
	}
	var found []dbgen.DoctorRoleSettingsRow
	for _, r := range rows {
		if r.Name == name {
			found = append(found, r)
		}
	}
	return found, nil
}

// remarkOn is a note if the setting is that of another role, since it is not known whether
// that role adds or runs jobs.
func (c *checker) remarkOn(s dbgen.DoctorRoleSettingsRow, what string) remark {
	severity := Warning
	if s.Role != "" && !s.Own {
		severity = Note
	}
	database := identifier(c.server.Database)
	var help string
	switch {
	case s.Role == "" && s.InDatabase:
		help = "alter database " + database + " reset " + s.Name + ";"
	case s.Role == "":
		help = "alter role all reset " + s.Name + ";"
	case s.InDatabase:
		help = "alter role " + identifier(s.Role) + " in database " + database + " reset " + s.Name + ";"
	default:
		help = "alter role " + identifier(s.Role) + " reset " + s.Name + ";"
	}
	return remark{severity, what, []string{help}}
}

func (c *checker) sessionsOf(s dbgen.DoctorRoleSettingsRow) string {
	switch {
	case s.Role != "":
		return "Sessions of role " + s.Role
	case s.InDatabase:
		return "Sessions of database " + c.server.Database
	}
	return "Sessions of all roles"
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }
