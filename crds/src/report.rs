//! What an agent answers to `GET /v1/functions?since=CURSOR&timeoutSeconds=S`: what it serves, and what it refused and why.
//!
//! The agent writes it, the operator reads it. An agent newer than the operator may add fields, so unknown ones are
//! ignored.

use serde::{Deserialize, Serialize};

/// Path of the endpoint on the agent's port.
pub const PATH: &str = "/v1/functions";
/// Audience of the token that the endpoint takes.
pub const AUDIENCE: &str = "isolet";
/// Longest time that the agent holds a request without news, in seconds.
pub const MAX_TIMEOUT_SECONDS: u64 = 60;

/// State of the agent's functions, or what changed in it since a cursor.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FunctionsReport {
    /// `EPOCH.N`, to be sent back as `since`; the epoch differs after each start of the agent.
    pub cursor: String,
    /// The list is the whole state: whatever is not in it, this agent does not know.
    #[serde(default)]
    pub full: bool,
    /// Functions whose state is new since the cursor, or all of them.
    #[serde(default)]
    pub functions: Vec<FunctionReport>,
    /// UIDs of functions that went since the cursor.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// One function on one runtime pod.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FunctionReport {
    /// UID of the Function.
    pub uid: String,
    /// What the worker serves; nothing where no revision has loaded yet.
    #[serde(default)]
    pub serving: Option<Serving>,
    /// The newest revision, where the worker or the agent refused it; the one before it goes on.
    #[serde(default)]
    pub refused: Option<Refused>,
    /// It crashed the worker repeatedly and is not run any more.
    #[serde(default)]
    pub quarantined: bool,
}

/// The revision that a worker serves.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// Its name: the first 12 hexadecimal digits of the bundle's digest.
    pub revision: String,
}

/// A revision that did not load.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its name.
    pub revision: String,
    /// One sentence: what is wrong and the remedy. A tenant's code may have written parts of it.
    pub message: String,
    /// Path of the module at fault, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1, in what the user wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_contract_writes() {
        let text = r#"{"cursor":"e1.7","full":true,"functions":[
            {"uid":"a","serving":{"revision":"0123456789ab"},"refused":null,"quarantined":false},
            {"uid":"b","serving":null,"quarantined":true,
             "refused":{"revision":"ba9876543210","message":"no","file":"main.ts","line":3,"column":1}}],
            "removed":["c"],"later":1}"#;
        let report: FunctionsReport = serde_json::from_str(text).unwrap();
        assert_eq!(report.cursor, "e1.7");
        assert!(report.full);
        assert_eq!(
            report.functions[0].serving.as_ref().unwrap().revision,
            "0123456789ab"
        );
        assert_eq!(report.functions[0].refused, None);
        let refused = report.functions[1].refused.as_ref().unwrap();
        assert_eq!((refused.line, refused.column), (Some(3), Some(1)));
        assert!(report.functions[1].quarantined);
        assert_eq!(report.removed, ["c"]);
    }

    #[test]
    fn an_empty_delta_is_short_and_complete() {
        let report = FunctionsReport {
            cursor: "e1.7".into(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"cursor":"e1.7","full":false,"functions":[],"removed":[]}"#
        );
    }

    #[test]
    fn absent_state_is_written_as_null() {
        let function = FunctionReport {
            uid: "a".into(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&function).unwrap(),
            r#"{"uid":"a","serving":null,"refused":null,"quarantined":false}"#
        );
    }
}
