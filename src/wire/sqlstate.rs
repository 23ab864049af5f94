//! The SQLSTATEs that Postern itself sends or looks for (PostgreSQL documentation, appendix A).

/// Five characters that tell a program what went wrong.
pub type SqlState = &'static str;

/// `protocol_violation`
pub const PROTOCOL_VIOLATION: SqlState = "08P01";
/// `connection_failure`
pub const CONNECTION_FAILURE: SqlState = "08006";
/// `sqlclient_unable_to_establish_sqlconnection`
pub const UNABLE_TO_CONNECT: SqlState = "08001";
/// `feature_not_supported`
pub const FEATURE_NOT_SUPPORTED: SqlState = "0A000";
/// `invalid_authorization_specification`
pub const INVALID_AUTHORIZATION: SqlState = "28000";
/// `invalid_password`
pub const INVALID_PASSWORD: SqlState = "28P01";
/// `invalid_sql_statement_name`
pub const INVALID_SQL_STATEMENT_NAME: SqlState = "26000";
/// `invalid_catalog_name`
pub const INVALID_CATALOG_NAME: SqlState = "3D000";
/// `invalid_parameter_value`
pub const INVALID_PARAMETER_VALUE: SqlState = "22023";
/// `undefined_object`
pub const UNDEFINED_OBJECT: SqlState = "42704";
/// `io_error`
pub const IO_ERROR: SqlState = "58030";
/// `insufficient_privilege`
pub const INSUFFICIENT_PRIVILEGE: SqlState = "42501";
/// `cant_change_runtime_param`
pub const CANT_CHANGE_RUNTIME_PARAM: SqlState = "55P02";

/// The state that a server gives for a setting that it refuses, if it is one of those that are usual there.
pub fn of_setting(state: &str) -> SqlState {
    [
        UNDEFINED_OBJECT,
        INSUFFICIENT_PRIVILEGE,
        CANT_CHANGE_RUNTIME_PARAM,
    ]
    .into_iter()
    .find(|known| *known == state)
    .unwrap_or(INVALID_PARAMETER_VALUE)
}

/// `too_many_connections`
pub const TOO_MANY_CONNECTIONS: SqlState = "53300";
/// `admin_shutdown`
pub const ADMIN_SHUTDOWN: SqlState = "57P01";
/// `query_canceled`
pub const QUERY_CANCELED: SqlState = "57014";
/// `idle_session_timeout`
pub const IDLE_SESSION_TIMEOUT: SqlState = "57P05";
/// `idle_in_transaction_session_timeout`
pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: SqlState = "25P03";
/// `transaction_timeout`
pub const TRANSACTION_TIMEOUT: SqlState = "25P04";
/// `cannot_connect_now`
pub const CANNOT_CONNECT_NOW: SqlState = "57P03";
/// `syntax_error`
pub const SYNTAX_ERROR: SqlState = "42601";
/// `read_only_sql_transaction`
pub const READ_ONLY_SQL_TRANSACTION: SqlState = "25006";
/// `internal_error`
pub const INTERNAL_ERROR: SqlState = "XX000";
/// `successful_completion`, the state of a notice that is no warning.
pub const SUCCESSFUL_COMPLETION: SqlState = "00000";
/// `warning`
pub const WARNING: SqlState = "01000";
/// `object_not_in_prerequisite_state`
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = "55000";
