package doctor

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// setting is a setting of the server, as it applies to this role in this database.
type setting struct{ text, unit, source string }

// number is the value of a setting that is a number; 0 if there is no such setting.
func (c *checker) number(name string) int64 {
	n, err := strconv.ParseInt(c.settings[name].text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// duration is the value of a setting that is a time; 0 is "off" to all of them.
func (c *checker) duration(name string) time.Duration {
	unit := time.Millisecond
	switch c.settings[name].unit {
	case "us":
		unit = time.Microsecond
	case "s":
		unit = time.Second
	case "min":
		unit = time.Minute
	}
	return time.Duration(c.number(name)) * unit
}

// timeouts are the settings that end statements or sessions of workers.
var timeouts = []struct {
	name           string
	short, tooMuch time.Duration
	why            string
}{
	{"statement_timeout", shortStatementTimeout, tooShortStatementTimeout,
		"it cancels claims, outcomes and SQL tasks under load, and migrations"},
	{"transaction_timeout", shortTransactionTimeout, tooShortTransactionTimeout,
		"it ends the connections of SQL tasks and migrations that take longer"},
	{"idle_in_transaction_session_timeout", shortIdleTransaction, tooShortIdleTransaction,
		"it ends the connections of transactions that wait for the program, such as a handler's own"},
	{"idle_session_timeout", shortIdleSession, tooShortIdleSession,
		"it ends the connection that listens for new jobs whenever the queue is quiet"},
}

func checkTimeouts(_ context.Context, c *checker) (Finding, error) {
	found := ok("No time-out of the server is so short that it ends a worker's statements.")
	for _, t := range timeouts {
		value := c.duration(t.name)
		if value <= 0 || value >= t.short {
			continue
		}
		if found.Severity == OK {
			found = Finding{}
		} else {
			found.What += " "
			found.Why += " "
		}
		severity := Warning
		if value < t.tooMuch {
			severity = Problem
		}
		found.Severity = max(found.Severity, severity)
		found.What += fmt.Sprintf("%s is %s for this role in this database (source: %s).", t.name, age(value), c.settings[t.name].source)
		found.Why += fmt.Sprintf("%s: %s.", t.name, t.why)
		help := fmt.Sprintf("alter role %s in database %s set %s = 0;", identifier(c.server.Role), identifier(c.server.Database), t.name)
		if c.settings[t.name].source == "client" {
			help = "Remove " + t.name + " from the connection string, or from PGOPTIONS."
		}
		found.Help = append(found.Help, help)
	}
	return found, nil
}

func checkAutovacuum(_ context.Context, c *checker) (Finding, error) {
	const why = "A queue leaves a dead row behind for every job and every lock. Without vacuum, claims walk over more of " +
		"them with each job, and the table only grows."
	if c.settings["autovacuum"].text == "off" {
		return Finding{Severity: Problem, What: "Autovacuum is off on this server.", Why: why,
			Help: []string{"alter system set autovacuum = on;", "select pg_reload_conf();"}}, nil
	}
	var off []string
	for _, t := range c.byName() {
		if t.Unvacuumed {
			off = append(off, c.qualified(t.Name))
		}
	}
	if len(off) == 0 {
		return ok("Autovacuum is on."), nil
	}
	f := Finding{Severity: Problem, What: "Autovacuum is off for " + listed(off, ", ") + ".", Why: why}
	for _, name := range off {
		f.Help = append(f.Help, "alter table "+name+" reset (autovacuum_enabled);")
	}
	return f, nil
}

func checkTrackCounts(_ context.Context, c *checker) (Finding, error) {
	if c.settings["track_counts"].text != "off" {
		return ok("track_counts is on."), nil
	}
	return Finding{
		Severity: Problem,
		What:     "track_counts is off.",
		Why: "Autovacuum learns from these counts which tables have dead rows, so it never cleans the queue. " +
			"The check dead-rows is blind as well.",
		Help: []string{"alter system set track_counts = on;", "select pg_reload_conf();"},
	}, nil
}
