//! Who we are to a NATS server. Files enter, and the server's challenge; an answer to it leaves, for the server alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

/// How to log in. Shown without secrets.
#[derive(Clone, Default)]
pub enum Login {
    /// Not at all.
    #[default]
    Nobody,
    /// With a user name and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// With a token.
    Token(String),
    /// With the credentials in a file: a JWT and the seed of its key. Read anew for each connection.
    Credentials(PathBuf),
    /// With the seed of an NKey, the first line of a file. Read anew for each connection.
    NKey(PathBuf),
}

/// A file that is no login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// It cannot be read.
    #[error("{key} {path}: {source}", path = .path.display())]
    Read {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{key} {path} {what}", path = .path.display())]
    Content {
        /// The configuration key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing in it.
        what: &'static str,
    },
}

/// A login whose files are read.
pub(super) enum Ready {
    Nobody,
    Password { user: String, password: String },
    Token(String),
    Credentials { jwt: String, key: KeyPair },
    NKey(KeyPair),
}

impl Login {
    /// Looks at the files. Blocks on the disk.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn check(&self) -> Result<(), LoginError> {
        self.ready().map(|_ready| ())
    }

    pub(super) fn ready(&self) -> Result<Ready, LoginError> {
        Ok(match self {
            Self::Nobody => Ready::Nobody,
            Self::Password { user, password } => Ready::Password { user: user.clone(), password: password.clone() },
            Self::Token(token) => Ready::Token(token.clone()),
            Self::Credentials(path) => {
                let text = read("creds_file", path)?;
                let content = |what| LoginError::Content { key: "creds_file", path: path.clone(), what };
                let jwt =
                    block(&text, "NATS USER JWT").ok_or_else(|| content("has no -----BEGIN NATS USER JWT-----"))?;
                let seed =
                    block(&text, "USER NKEY SEED").ok_or_else(|| content("has no -----BEGIN USER NKEY SEED-----"))?;
                let key = KeyPair::from_seed(seed).map_err(|_| content("has a seed that is none of a user"))?;
                Ready::Credentials { jwt: jwt.to_owned(), key }
            }
            Self::NKey(path) => {
                let text = read("nkey_file", path)?;
                let seed = text.lines().next().unwrap_or_default().trim();
                let what = "does not begin with the seed of an NKey, a line that begins with SU";
                let key = KeyPair::from_seed(seed).map_err(|_| LoginError::Content {
                    key: "nkey_file",
                    path: path.clone(),
                    what,
                })?;
                Ready::NKey(key)
            }
        })
    }
}

/// Shows no secret, and no user name either.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Password { .. } => f.write_str("Password(<REDACTED>)"),
            Self::Token(_) => f.write_str("Token(<REDACTED>)"),
            Self::Credentials(path) => f.debug_tuple("Credentials").field(path).finish(),
            Self::NKey(path) => f.debug_tuple("NKey").field(path).finish(),
        }
    }
}

impl Ready {
    /// The answer to a server's challenge.
    pub(super) fn answer(self: &Arc<Self>, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        let signed = |key: &KeyPair| key.sign(nonce).map_err(|_| AuthError::new("the key cannot sign"));
        match &**self {
            Self::Nobody => {}
            Self::Password { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
            Self::Token(token) => auth.token = Some(token.clone()),
            Self::Credentials { jwt, key } => {
                auth.signature = Some(signed(key)?);
                auth.jwt = Some(jwt.clone());
            }
            Self::NKey(key) => {
                auth.signature = Some(signed(key)?);
                auth.nkey = Some(key.public_key());
            }
        }
        Ok(auth)
    }
}

fn read(key: &'static str, path: &Path) -> Result<String, LoginError> {
    std::fs::read_to_string(path).map_err(|source| LoginError::Read { key, path: path.to_owned(), source })
}

/// The line after `-----BEGIN what-----`.
fn block<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let is_head = |line: &str| line.starts_with("---") && line.contains("BEGIN") && line.contains(what);
    let mut lines = text.lines().map(str::trim).skip_while(|line| !is_head(line));
    lines.nth(1).filter(|line| !line.is_empty() && !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_faults_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join("login");
            std::fs::write(&path, text).unwrap();
            path
        };
        let seed = KeyPair::new_user().seed().unwrap();
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\r\neyJ.canary\r\n------END NATS USER JWT------\r\n\r\n****\r\n-----BEGIN USER NKEY SEED-----\r\n{seed}\r\n"
        );
        let Ready::Credentials { jwt, .. } = Login::Credentials(file(&creds)).ready().unwrap() else { panic!() };
        assert_eq!(jwt, "eyJ.canary");
        Login::NKey(file(&format!("{seed}\n"))).check().unwrap();
        let error = Login::NKey(file("SUcanary")).check().unwrap_err().to_string();
        assert!(
            error.contains("nkey_file") && error.contains("begins with SU") && !error.contains("canary"),
            "{error}"
        );
        let error = Login::Credentials(file("canary")).check().unwrap_err().to_string();
        assert!(error.contains("BEGIN NATS USER JWT") && !error.contains("canary"), "{error}");
        let error = Login::Credentials("/absent".into()).check().unwrap_err().to_string();
        assert!(error.starts_with("creds_file /absent: "), "{error}");
        let login = Login::Password { user: "canary".to_owned(), password: "canary".to_owned() };
        assert!(!format!("{login:?} {:?}", Login::Token("canary".to_owned())).contains("canary"));
    }
}
