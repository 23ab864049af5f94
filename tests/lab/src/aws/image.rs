//! What an image of the gateway asks at its first boot: Parameter Store's GetParameter and Auto Scaling's CompleteLifecycleAction.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::xml::{query_answer, query_error};
use super::{Answer, error, respond};
use crate::keys::INSTANCE_ID;

/// What is there for an image, and what it has said.
#[derive(Debug, Clone, Default)]
pub struct ImageModel {
    /// Parameters by name, each with its versions' values, the first of which is version 1. All are of type `SecureString`.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// A lifecycle action that waits for the instance: the group and the hook.
    pub waits: Option<(String, String)>,
    /// With what it was completed: `CONTINUE` or `ABANDON`.
    pub completed: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    /// `NAME` or `NAME:VERSION`.
    name: String,
    #[serde(default)]
    with_decryption: bool,
}

pub(super) fn parameter(model: &ImageModel, body: &[u8]) -> Answer {
    let failed = |code: &str, text: &str| error(StatusCode::BAD_REQUEST, code, text, true);
    let Ok(request) = serde_json::from_slice::<Request>(body) else {
        return failed("ValidationException", "malformed request");
    };
    let (name, version) = match request.name.rsplit_once(':') {
        Some((name, version)) => (name, version.parse::<usize>().ok()),
        None => (request.name.as_str(), None),
    };
    let Some(versions) = model.parameters.get(name) else {
        return failed("ParameterNotFound", "");
    };
    let version = version.unwrap_or(versions.len());
    let Some(value) = version.checked_sub(1).and_then(|place| versions.get(place)) else {
        return failed("ParameterVersionNotFound", "");
    };
    let value = match request.with_decryption {
        true => value.as_str(),
        false => "AQICAHg-this-is-encrypted",
    };
    let parameter = json!({ "Name": name, "Type": "SecureString", "Value": value, "Version": version, "DataType": "text" });
    let answer = json!({ "Parameter": parameter });
    respond(StatusCode::OK, "application/x-amz-json-1.1", answer.to_string())
}

pub(super) fn complete(model: &mut ImageModel, form: &BTreeMap<String, String>) -> Answer {
    let given = |key: &str| form.get(key).map_or("", String::as_str);
    let result = given("LifecycleActionResult");
    if !["CONTINUE", "ABANDON"].contains(&result) {
        let text = format!("Lifecycle action result {result} isn't CONTINUE or ABANDON.");
        return query_error(StatusCode::BAD_REQUEST, "ValidationError", &text);
    }
    let asked = (
        given("AutoScalingGroupName").to_owned(),
        given("LifecycleHookName").to_owned(),
    );
    if model.waits.as_ref() != Some(&asked) || given("InstanceId") != INSTANCE_ID {
        let text = format!(
            "No active Lifecycle Action found with instance ID {}",
            given("InstanceId")
        );
        return query_error(StatusCode::BAD_REQUEST, "ValidationError", &text);
    }
    model.waits = None;
    model.completed = Some(result.to_owned());
    query_answer(
        "http://autoscaling.amazonaws.com/doc/2011-01-01/",
        "CompleteLifecycleAction",
        "",
    )
}
