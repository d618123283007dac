package connect

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gworker/gworker/internal/dbgen"
)

// gworker's own connections pin the settings that change what a statement or its result
// means (see pinned). A caller's pool or transaction has its own settings, and a proxy may
// ignore those that are asked for, so a client checks them once. These matter:
//
//   - client_encoding: text would be stored garbled, and not found again;
//   - datestyle, where results come as text (without prepared statements): pgx reads ISO
//     only;
//   - array_nulls = off, where arguments go as text: a null in an array would be the
//     string NULL;
//   - row_security = off, where policies concern the role: its statements fail.
//
// Others were tried and do not affect gworker's statements and functions: intervalstyle,
// timezone, standard_conforming_strings, backslash_quote, bytea_output,
// extra_float_digits, transform_null_equals, quote_all_identifiers, xmloption,
// check_function_bodies, plan_cache_mode, session_replication_role, client_min_messages,
// synchronous_commit, default_transaction_isolation and
// default_transaction_deferrable. Time-outs and default_transaction_read_only are
// findings of the doctor.

// A SettingError says that a setting of a connection changes what is stored or read.
type SettingError struct{ name, value, why, want string }

func (e *SettingError) Error() string {
	return fmt.Sprintf("the connection has %s = %q: %s. Set it to %s for the pool (ConnConfig.RuntimeParams[%q]), in the connection string, or for the role (alter role)",
		e.name, e.value, e.why, e.want, e.name)
}

// CheckSettings returns a SettingError if a setting of the connection does harm. asText
// says that arguments and results are sent as text.
func CheckSettings(s dbgen.SessionSettingsRow, asText bool) error {
	// Without a conversion, UTF-8 stays as it is.
	raw := s.ClientEncoding == "SQL_ASCII" && (s.ServerEncoding == "UTF8" || s.ServerEncoding == "SQL_ASCII")
	switch {
	case s.ClientEncoding != "UTF8" && !raw:
		return &SettingError{"client_encoding", s.ClientEncoding, "text, which is UTF-8 here, would be stored garbled", "UTF8"}
	case asText && !strings.HasPrefix(s.Datestyle, "ISO"):
		return &SettingError{"datestyle", s.Datestyle, "without prepared statements times come in this form, which cannot be read", "ISO"}
	case asText && s.ArrayNulls == "off":
		return &SettingError{"array_nulls", s.ArrayNulls, "without prepared statements nulls in arrays would be texts", "on"}
	}
	return nil
}

// GoesAsText reports whether the pool sends arguments and results as text.
func GoesAsText(pool *pgxpool.Pool) bool {
	switch pool.Config().ConnConfig.DefaultQueryExecMode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		return true
	default:
		return false
	}
}

// RowSecurityOff is the error of a connection with row_security = off, where policies
// concern its role.
func RowSecurityOff() error {
	return &SettingError{"row_security", "off", "policies of the queue's tables concern its role, so statements on them fail", "on"}
}
