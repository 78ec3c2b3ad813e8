//! How a command ended, as the error stream says it: text before version 4, a `Status` from there on.

use serde_json::{Value, json};

use super::Version;

const EXIT_CODE: &str = "ExitCode";
const NON_ZERO: &str = "NonZeroExitCode";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Exit(u8),
    /// It did not come to an exit.
    Failed(String),
}

impl Outcome {
    /// What a client understands of the bytes on the error stream.
    pub fn read(version: Version, error: &[u8]) -> Self {
        if error.is_empty() {
            return Outcome::Success;
        }
        if !version.has_status() {
            let text = String::from_utf8_lossy(error);
            let begin = if version == Version::V1 { "Error" } else { "error" };
            return Outcome::Failed(format!("{begin} executing remote command: {text}"));
        }
        let odd = |what: &str| Outcome::Failed(format!("error stream protocol error: {what}"));
        let status: Value = match serde_json::from_slice(error) {
            Ok(status) => status,
            Err(why) => return odd(&format!("{why} in {:?}", String::from_utf8_lossy(error))),
        };
        match status["status"].as_str() {
            Some("Success") => Outcome::Success,
            Some("Failure") if status["reason"] == NON_ZERO => {
                if status["details"].is_null() {
                    return odd("details must be set");
                }
                let mut causes = status["details"]["causes"].as_array().into_iter().flatten();
                let Some(cause) = causes.find(|cause| cause["reason"] == EXIT_CODE) else {
                    return odd(&format!("no {EXIT_CODE} cause given"));
                };
                let code = cause["message"].as_str().unwrap_or_default();
                match code.parse() {
                    Ok(code) => Outcome::Exit(code),
                    Err(_) => odd(&format!("invalid exit code value {code:?}")),
                }
            }
            Some("Failure") => Outcome::Failed(status["message"].as_str().unwrap_or_default().to_owned()),
            _ => odd("unknown error"),
        }
    }

    /// What is said of it to a client: a `Status`, or, before version 4, a text if there is anything to say.
    pub fn write(&self, version: Version) -> Vec<u8> {
        if version.has_status() {
            return self.status().into_bytes();
        }
        match self {
            Outcome::Success => Vec::new(),
            Outcome::Exit(_) | Outcome::Failed(_) => self.message().into_bytes(),
        }
    }

    fn message(&self) -> String {
        match self {
            Outcome::Success => String::new(),
            Outcome::Exit(code) => format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            ),
            Outcome::Failed(why) => format!("Internal error occurred: {why}"),
        }
    }

    fn status(&self) -> String {
        let text = |text: &str| Value::from(text).to_string();
        // the fields in the order of upstream's
        match self {
            Outcome::Success => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
            Outcome::Exit(code) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":{},"reason":"{NON_ZERO}","details":{{"causes":[{{"reason":"{EXIT_CODE}","message":"{code}"}}]}}}}"#,
                text(&self.message())
            ),
            Outcome::Failed(why) => format!(
                r#"{{"metadata":{{}},"status":"Failure","message":{},"reason":"InternalError","details":{{"causes":[{}]}},"code":500}}"#,
                text(&self.message()),
                json!({"message": why})
            ),
        }
    }
}

/// What a server of `version` says to its client when the one that ran the command said `error` in version `spoken`.
pub fn passed_on(version: Version, spoken: Version, error: &[u8]) -> Vec<u8> {
    match version {
        // a client that has its command's own server before it
        Version::V4 if spoken.has_status() => error.to_vec(),
        Version::V1 | Version::V2 | Version::V3 if !spoken.has_status() => error.to_vec(),
        Version::V1 | Version::V2 | Version::V3 => {
            let status: Value = serde_json::from_slice(error).unwrap_or_default();
            match status["status"].as_str() {
                Some("Success") => Vec::new(),
                _ => status["message"].as_str().unwrap_or_default().as_bytes().to_vec(),
            }
        }
        Version::V4 | Version::V5 => Outcome::read(spoken, error).write(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_and_written_as_upstream_does() {
        let exit = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        let with = |details: &str| {
            format!(r#"{{"status":"Failure","reason":"NonZeroExitCode","details":{details}}}"#)
        };
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        let odd = |why: &str| Outcome::Failed(format!("error stream protocol error: {why}"));
        let cases = [
            (Version::V4, String::new(), Outcome::Success),
            (Version::V4, r#"{"metadata":{},"status":"Success"}"#.into(), Outcome::Success),
            (Version::V4, exit.into(), Outcome::Exit(7)),
            (Version::V4, with("null"), odd("details must be set")),
            (Version::V4, with("{}"), odd("no ExitCode cause given")),
            (
                Version::V4,
                with(r#"{"causes":[{"reason":"ExitCode","message":"256"}]}"#),
                odd("invalid exit code value \"256\""),
            ),
            (
                Version::V4,
                r#"{"status":"Failure","message":"no such container"}"#.into(),
                failed("no such container"),
            ),
            (Version::V4, "{}".into(), odd("unknown error")),
            (Version::V3, "boom".into(), failed("error executing remote command: boom")),
            (Version::V1, "boom".into(), failed("Error executing remote command: boom")),
        ];
        for (version, error, want) in cases {
            assert_eq!(Outcome::read(version, error.as_bytes()), want, "{error}");
        }
        assert!(
            matches!(Outcome::read(Version::V4, b"x"), Outcome::Failed(why) if why.ends_with("in \"x\""))
        );

        let written = |outcome: Outcome, version| String::from_utf8(outcome.write(version)).expect("text");
        assert_eq!(written(Outcome::Success, Version::V5), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(
            written(Outcome::Exit(7), Version::V5),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: command terminated with exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#
        );
        assert_eq!(
            written(failed("a \"b\""), Version::V5),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: a \"b\"","reason":"InternalError","details":{"causes":[{"message":"a \"b\""}]},"code":500}"#
        );
        assert_eq!(written(Outcome::Success, Version::V1), "");
    }

    #[test]
    fn what_a_runtime_said_reaches_clients_in_their_version() {
        let exit = r#"{"status":"Failure","message":"m","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        let success = r#"{"metadata":{},"status":"Success"}"#;
        let cases = [
            (Version::V4, Version::V4, exit, exit),
            (Version::V1, Version::V4, exit, "m"),
            (Version::V1, Version::V4, success, ""),
            (Version::V1, Version::V2, "boom", "boom"),
            (Version::V5, Version::V4, success, success),
            (Version::V4, Version::V2, "", success),
        ];
        for (version, spoken, error, want) in cases {
            let got = passed_on(version, spoken, error.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), want, "{version:?} {spoken:?} {error}");
        }
    }
}
