package retry

import "github.com/jackc/pgerrcode"

// rule says what a SQLSTATE means for the next try.
type rule struct {
	class Class
	// elsewhere says that it was the session's fault: another session of the same
	// server may carry the statement out.
	elsewhere bool
	reason    string
}

// transactionTimeout is PostgreSQL's from 17 on; pgerrcode does not have it.
const transactionTimeout = "25P04"

// states are the codes that differ from their class, out of "PostgreSQL Error
// Codes", appendix A of PostgreSQL's manual (11 to 18).
var states = map[string]rule{
	pgerrcode.ProtocolViolation:                       {Connection, true, "protocol violation: a pooler gave the session another one's prepared statement"},
	pgerrcode.FeatureNotSupported:                     {No, true, "feature not supported: also a cached plan whose result type DDL has changed"},
	pgerrcode.ReadOnlySQLTransaction:                  {Connection, false, "read-only transaction: after a failover the new primary takes it"},
	pgerrcode.InFailedSQLTransaction:                  {No, true, "in failed transaction: the session was left in one"},
	pgerrcode.IdleInTransactionSessionTimeout:         {Connection, true, "idle_in_transaction_session_timeout: nothing was under way"},
	transactionTimeout:                                {Connection, false, "transaction_timeout: the session has ended"},
	pgerrcode.InvalidSQLStatementName:                 {Contention, true, "the prepared statement is gone: deallocate, discard, or a pooler"},
	pgerrcode.TransactionIntegrityConstraintViolation: {Answer, false, "integrity constraint violation at the commit"},
	pgerrcode.StatementCompletionUnknown:              {Connection, false, "statement completion unknown"},
	pgerrcode.UndefinedColumn:                         {No, true, "undefined column: also a statement that was prepared before DDL"},
	pgerrcode.DatatypeMismatch:                        {No, true, "datatype mismatch: also a plan that was made before DDL"},
	pgerrcode.DuplicatePreparedStatement:              {No, true, "the prepared statement exists already: a pooler's session, prepared by others"},
	pgerrcode.ObjectInUse:                             {Contention, false, "object in use by another session"},
	pgerrcode.LockNotAvailable:                        {Contention, false, "lock not available: lock_timeout has ended the wait"},
	pgerrcode.QueryCanceled:                           {Connection, false, "cancelled, by statement_timeout or by an administrator"},
	pgerrcode.AdminShutdown:                           {Connection, false, "admin shutdown, or pg_terminate_backend"},
	pgerrcode.CrashShutdown:                           {Connection, false, "crash shutdown"},
	pgerrcode.CannotConnectNow:                        {Connection, false, "cannot connect now: the server starts up or shuts down"},
	pgerrcode.DatabaseDropped:                         {Connection, false, "database dropped: the session has ended, and the next connection tells whether it is there again"},
	pgerrcode.IdleSessionTimeout:                      {Connection, true, "idle_session_timeout: nothing was under way"},
	pgerrcode.InternalError:                           {No, true, "internal error: also a cached plan of a relation that DDL has replaced"},
}

// classes are the rules of whole classes, by the first two characters.
var classes = map[string]rule{
	"00": {No, false, "successful completion: no error"},
	"01": {No, false, "warning: no error"},
	"02": {No, false, "no data"},
	"03": {No, false, "SQL statement not yet complete"},
	"08": {Connection, false, "connection exception"},
	"09": {Answer, false, "triggered action exception: a trigger's"},
	"0A": {No, false, "feature not supported"},
	"0B": {No, false, "invalid transaction initiation"},
	"0F": {No, false, "locator exception"},
	"0L": {No, false, "invalid grantor"},
	"0P": {No, false, "invalid role specification"},
	"0Z": {No, false, "diagnostics exception"},
	"10": {No, false, "XQuery error"},
	"20": {Answer, false, "case not found: a trigger's"},
	"21": {Answer, false, "cardinality violation: a trigger's subquery returned several rows"},
	"22": {Answer, false, "data exception: the values, or what a trigger makes of them"},
	"23": {Answer, false, "integrity constraint violation"},
	"24": {No, false, "invalid cursor state"},
	"25": {No, false, "invalid transaction state"},
	"26": {No, false, "invalid SQL statement name"},
	"27": {Answer, false, "triggered data change violation"},
	"28": {No, false, "invalid authorization: a password or pg_hba.conf"},
	"2B": {No, false, "dependent privilege descriptors still exist"},
	"2D": {No, false, "invalid transaction termination"},
	"2F": {Answer, false, "SQL routine exception: a trigger's"},
	"34": {No, false, "invalid cursor name"},
	"38": {Answer, false, "external routine exception: a trigger's, in another language"},
	"39": {Answer, false, "external routine invocation exception: a trigger's"},
	"3B": {No, false, "savepoint exception"},
	"3D": {No, false, "invalid catalog name: there is no such database"},
	"3F": {No, false, "invalid schema name"},
	"40": {Contention, false, "transaction rollback: another transaction was in the way"},
	"42": {No, false, "syntax error or access rule violation: the schema or the rights are not as they should be"},
	"44": {Answer, false, "with check option violation"},
	"53": {Connection, false, "insufficient resources: disk, memory, connections"},
	"54": {Answer, false, "program limit exceeded: an index entry too long, a trigger without end"},
	"55": {No, false, "object not in prerequisite state"},
	"57": {Connection, false, "operator intervention"},
	"58": {No, false, "system error: a file or a block, which may be one row's"},
	"72": {Contention, false, "snapshot too old"},
	"F0": {No, false, "configuration file error"},
	"HV": {No, false, "foreign data wrapper error: the other server may be away"},
	"P0": {Answer, false, "PL/pgSQL error: raised by a trigger"},
	"XX": {No, false, "internal error: corrupted data or index"},
}

// ruleOf is the rule of a SQLSTATE. An unknown one comes from a user's own function.
func ruleOf(code string) rule {
	if r, ok := states[code]; ok {
		return r
	}
	if len(code) == 5 {
		if r, ok := classes[code[:2]]; ok {
			return r
		}
	}
	return rule{No, false, "not PostgreSQL's"}
}
