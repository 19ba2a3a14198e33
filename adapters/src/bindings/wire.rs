//! What the binding cache says, and Cloud Controller to it: rows of drains with credentials and apps (contract: syslog drains §5.1, §5.2).
//!
//! JSON enters and leaves, in the order of keys of the originals. Pure. What is absent or `null` is empty, as in the originals; only the
//! difference between no apps and `null` ones is kept. `Debug` shows no URL, key or certificate.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A drain, and who has bound it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Row {
    #[serde(deserialize_with = "nullable")]
    pub(crate) url: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) credentials: Vec<Credential>,
}

/// What a drain is shown and trusts, as PEM texts, for some apps.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Credential {
    #[serde(deserialize_with = "nullable")]
    pub(crate) cert: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) key: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ca: String,
    /// `null` for a drain of everything.
    pub(crate) apps: Option<Vec<App>>,
}

/// An app, and the HOSTNAME of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct App {
    #[serde(deserialize_with = "nullable")]
    pub(crate) hostname: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) app_id: String,
}

/// Reads a body of `/v2/bindings` or `/v2/aggregate`. `null` is no rows, and so is a row without URL.
///
/// # Errors
/// Not JSON of this form. Only the place is shown.
pub(crate) fn read(body: &[u8]) -> Result<Vec<Row>, String> {
    match serde_json::from_slice::<Option<Vec<Row>>>(body) {
        Ok(rows) => Ok(rows.into_iter().flatten().filter(|row| !row.url.is_empty()).collect()),
        Err(error) => Err(no_sense(&error)),
    }
}

/// An error without a piece of what was read, which may be a secret.
pub(crate) fn no_sense(error: &serde_json::Error) -> String {
    format!("the answer makes no sense at line {}, column {}", error.line(), error.column())
}

fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("apps", &self.apps).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let app = App { hostname: "org.space.app".to_owned(), app_id: "a-1".to_owned() };
        let credential =
            Credential { cert: "C".to_owned(), key: "K".to_owned(), ca: String::new(), apps: Some(vec![app]) };
        Row { url: "syslog://h:1?a=b&c=d".to_owned(), credentials: vec![credential] }
    }

    #[test]
    fn bodies_are_those_of_the_contract_byte_for_byte() {
        let golden = r#"[{"url":"syslog://h:1?a=b&c=d","credentials":[{"cert":"C","key":"K","ca":"","apps":[{"hostname":"org.space.app","app_id":"a-1"}]}]}]"#;
        assert_eq!(serde_json::to_string(&[row()]).unwrap(), golden);
        assert_eq!(read(golden.as_bytes()), Ok(vec![row()]));
        let mut aggregate = row();
        aggregate.credentials[0].apps = None;
        let golden = r#"[{"url":"syslog://h:1?a=b&c=d","credentials":[{"cert":"C","key":"K","ca":"","apps":null}]}]"#;
        assert_eq!(serde_json::to_string(&[aggregate.clone()]).unwrap(), golden);
        assert_eq!(read(golden.as_bytes()), Ok(vec![aggregate]));
        assert_eq!(serde_json::to_string(&Vec::<Row>::new()).unwrap(), "[]");
        assert_eq!(serde_json::to_string(&None::<Vec<Row>>).unwrap(), "null");
    }

    #[test]
    fn what_is_absent_null_or_new_is_taken() {
        for none in ["null", "[]", r#"[{"url":""}]"#, r#"[{"credentials":[]}]"#, r#"[{"url":null}]"#] {
            assert_eq!(read(none.as_bytes()), Ok(Vec::new()), "{none}");
        }
        let text = r#"[{"url":"u","more":1,"credentials":[{"cert":null,"apps":[{"app_id":"a","hostname":null}]}]},{"url":"v","credentials":null}]"#;
        let app = App { hostname: String::new(), app_id: "a".to_owned() };
        let rows = read(text.as_bytes()).unwrap();
        assert_eq!(rows[0].credentials, [Credential { apps: Some(vec![app]), ..Credential::default() }]);
        assert_eq!(rows[1], Row { url: "v".to_owned(), credentials: Vec::new() });
    }

    #[test]
    fn neither_an_error_nor_debug_shows_what_was_read() {
        for bad in
            ["", "{}", "[1]", r#"[{"url":"canary","credentials":"canary"}]"#, r#"[{"url":["canary"]}]"#, "<html>canary"]
        {
            let error = read(bad.as_bytes()).unwrap_err();
            assert!(error.starts_with("the answer makes no sense at line 1, column") || bad.is_empty(), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let mut row = row();
        row.url = "canary".to_owned();
        row.credentials[0].key = "canary".to_owned();
        assert!(!format!("{row:?}").contains("canary"));
    }
}
