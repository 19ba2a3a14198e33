//! Tests that run themselves again in namespaces of their own: networks, mounts and users. There they may drop packets, mount file systems
//! and change where names lead; nothing outside is touched.

use std::process::{Command, Stdio};

use crate::fleet::load::say;

/// Says that a test runs in its namespaces.
const INSIDE: &str = "HYDRANT_TEST_NAMESPACE";

/// Whether this process is in namespaces of its own.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test `name` of this program in namespaces, with loopback up. Fails with what to do where there are none.
pub(crate) fn run(name: &str) {
    let program = std::env::current_exe().unwrap();
    let shell = r#"python3 -c '
import fcntl, socket, struct
s = socket.socket()
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x49))' && exec "$0" --exact "$1" --nocapture"#;
    // The namespace of users first: without it only root may make the others.
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", shell])
        .arg(program)
        .arg(name)
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("unshare, of util-linux, makes namespaces");
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(
        run.status.success() && told.contains("1 passed"),
        "in namespaces ({}); where they are forbidden, allow them: sysctl -w kernel.unprivileged_userns_clone=1\n{told}",
        run.status
    );
    told.lines().filter(|line| line.starts_with('{')).for_each(say);
}

/// Runs a program to its end, for what only programs of the system can do.
pub(crate) fn command(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}
