//! Answers of the Query protocol, which are XML.

use hyper::StatusCode;

use super::{Answer, respond};

/// `<name>text</name>`, with the text escaped.
pub(super) fn element(name: &str, text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<{name}>{text}</{name}>")
}

/// A whole answer: `<ActionResponse><ActionResult>…`.
pub(super) fn query_answer(namespace: &str, action: &str, result: &str) -> Answer {
    let body = format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{result}</{action}Result>\
         <ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></{action}Response>"
    );
    respond(StatusCode::OK, CONTENT, body)
}

pub(super) fn query_error(status: StatusCode, code: &str, text: &str) -> Answer {
    let error = format!(
        "{}{}{}",
        element("Type", "Sender"),
        element("Code", code),
        element("Message", text)
    );
    let body =
        format!("<ErrorResponse><Error>{error}</Error><RequestId>{REQUEST_ID}</RequestId></ErrorResponse>");
    respond(status, CONTENT, body)
}

const CONTENT: &str = "text/xml";
pub(super) const REQUEST_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";
