//! SSM DescribeSessions, from a list that tests fill.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, error, respond};

/// One Session Manager session, in the API's own spelling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SsmSession {
    /// `NAME-0123456789abcdef0`.
    pub session_id: String,
    /// The instance it leads to.
    pub target: String,
    /// `Connected`, `Connecting`, `Disconnected`, `Terminating`, `Terminated` or `Failed`.
    pub status: String,
    /// Seconds since 1970.
    pub start_date: f64,
    /// The document it was started with.
    pub document_name: String,
    /// ARN of who started it.
    pub owner: String,
}

pub(super) fn describe_sessions(sessions: &[SsmSession], body: &[u8]) -> Answer {
    let Ok(request) = serde_json::from_slice::<Request>(body) else {
        return error(
            StatusCode::BAD_REQUEST,
            "ValidationException",
            "malformed request",
            true,
        );
    };
    let most = request.max_results.unwrap_or(MAX_RESULTS);
    let start = request.next_token.as_deref().map_or(Ok(0), str::parse::<usize>);
    let (Ok(start), 1..=MAX_RESULTS) = (start, most) else {
        return error(
            StatusCode::BAD_REQUEST,
            "InvalidNextToken",
            "malformed NextToken or MaxResults",
            true,
        );
    };
    let mut found = Vec::new();
    for session in sessions {
        match request.fits(session) {
            Some(true) => found.push(session),
            Some(false) => {}
            None => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "InvalidFilterKey",
                    "unknown filter or state",
                    true,
                );
            }
        }
    }
    let page: Vec<_> = found.iter().skip(start).take(most).collect();
    let mut answer = json!({ "Sessions": page });
    if let (true, Value::Object(answer)) = (found.len() > start + most, &mut answer) {
        answer.insert("NextToken".to_owned(), (start + most).to_string().into());
    }
    respond(StatusCode::OK, "application/x-amz-json-1.1", answer.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    state: String,
    #[serde(default)]
    filters: Vec<Filter>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
struct Filter {
    key: String,
    value: String,
}

impl Request {
    /// `None` when the request names a state or filter that doesn't exist.
    fn fits(&self, session: &SsmSession) -> Option<bool> {
        let is_over = ["Terminated", "Terminating", "Failed"].contains(&session.status.as_str());
        let mut fits = match self.state.as_str() {
            "Active" => !is_over,
            "History" => is_over,
            _ => return None,
        };
        for Filter { key, value } in &self.filters {
            fits &= match key.as_str() {
                "SessionId" => session.session_id == *value,
                "Target" => session.target == *value,
                "Owner" => session.owner == *value,
                "Status" => session.status == *value,
                _ => return None,
            };
        }
        Some(fits)
    }
}

const MAX_RESULTS: usize = 200;
