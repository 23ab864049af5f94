//! STS: GetCallerIdentity, in XML or, for whoever accepts that, in JSON.

use hyper::StatusCode;
use serde_json::json;

use super::authorization::code;
use super::xml::{REQUEST_ID, element, query_answer};
use super::{Answer, respond};
use crate::keys::{ACCOUNT, Key};
use crate::token::Refusal;

/// Who has signed the call.
pub(super) fn caller_identity(key: &Key, speaks_json: bool) -> Answer {
    let user_id = match key.arn.rsplit_once('/') {
        Some((_, name)) if key.session_token.is_some() => format!("AROAPOSTERNLAB0000000:{name}"),
        _ => "AIDAPOSTERNLAB0000000".to_owned(),
    };
    if speaks_json {
        let answer = json!({ "GetCallerIdentityResponse": {
            "GetCallerIdentityResult": { "Account": ACCOUNT, "Arn": key.arn, "UserId": user_id },
            "ResponseMetadata": { "RequestId": REQUEST_ID },
        } });
        return respond(StatusCode::OK, "application/json", answer.to_string());
    }
    let result = [
        element("Arn", &key.arn),
        element("UserId", &user_id),
        element("Account", ACCOUNT),
    ]
    .concat();
    query_answer(
        "https://sts.amazonaws.com/doc/2011-06-15/",
        "GetCallerIdentity",
        &result,
    )
}

/// A refusal in JSON.
pub(super) fn refuse(refusal: Refusal) -> Answer {
    let answer = json!({
        "Error": { "Code": code(refusal), "Message": refusal.to_string(), "Type": "Sender" },
        "RequestId": REQUEST_ID,
    });
    respond(StatusCode::FORBIDDEN, "application/json", answer.to_string())
}
