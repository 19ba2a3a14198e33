//! A pipeline over certificates of `hydrant certs init`, with roles enforced: what goes through, what does not, and what is said.

use std::path::Path;
use std::process::Stdio;

use hydrant::Up;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::{metrics, pipeline, sum, until};

/// A command with the certificate of a role, none for an empty one. Its standard output, standard error and exit code.
async fn run(certs: &Path, role: &str, args: &[&str], input: &str) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydrant"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for name in ["HYDRANT_CA", "HYDRANT_CERT", "HYDRANT_KEY"] {
        command.env_remove(name);
    }
    if !role.is_empty() {
        command
            .env("HYDRANT_CA", certs.join("ca.pem"))
            .env("HYDRANT_CERT", certs.join(format!("{role}.pem")))
            .env("HYDRANT_KEY", certs.join(format!("{role}.key")));
    }
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// `hydrant certs init`, and a pipeline with the lines that it prints.
pub(crate) async fn pipeline_over(certs: &Path) -> Up {
    let dir = certs.display().to_string();
    let (said, errors, code) = run(certs, "", &["certs", "init", "--dir", &dir], "").await;
    assert_eq!((errors.as_str(), code), ("", 0));
    let lines = said.split("each role:\n\n").nth(1).unwrap().split("\nAnd for").next().unwrap();
    // The harness writes its keys in full at the top, so these go there too.
    let mut more = String::new();
    let mut table = "";
    for line in lines.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => table = name,
            None => more.push_str(&format!("{table}.{line}\n")),
        }
    }
    pipeline(&more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_pass_through_every_role_and_only_those_who_may_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let up = pipeline_over(&certs).await;
    let (agent, server) = (up.agent().grpc.to_string(), up.traffic_controller().grpc.to_string());
    let (_, said, code) = run(&certs, "operator", &["emit", "my-app", "--agent", &agent], "one\ntwo\n").await;
    assert_eq!((said.as_str(), code), ("hydrant: 2 lines for my-app: 2 delivered\n", 0));

    let tail = ["tail", "my-app", "--no-follow", "-o", "raw", "--server", &server];
    for role in ["operator", "consumer"] {
        let (shown, errors, code) = run(&certs, role, &tail, "").await;
        assert_eq!((shown.as_str(), errors.as_str(), code), ("one\ntwo\n", "", 0), "{role}");
    }

    // A certificate of the same authority, with another role.
    let (shown, errors, code) = run(&certs, "agent", &tail, "").await;
    assert_eq!((shown.as_str(), code), ("", 1));
    let expected = "/hydrant.v1.Follow/Follow needs a certificate with the role consumer or operator or adapters or \
                    traffic-controller; this one is CN=metron with role agent";
    assert!(errors.contains(expected), "{errors}");
    let refused = metrics(up.traffic_controller().admin).await;
    assert_eq!(sum(&refused, "hydrant_access_denied_total", "grpc"), 1);

    // Nobody reads past the traffic controller.
    let doppler = up.doppler().grpc.to_string();
    let around = ["firehose", "--server", &doppler, "--server-name", "doppler"];
    let (_, errors, code) = run(&certs, "consumer", &around, "").await;
    assert_eq!(code, 1);
    assert!(errors.contains("/loggregator.v2.Egress/BatchedReceiver needs a certificate with the role"), "{errors}");

    // Plain text, no certificate, and another name than the server's.
    let (shown, errors, code) = run(&certs, "", &tail, "").await;
    assert_eq!((shown.as_str(), code), ("", 1));
    assert!(errors.contains("it may speak TLS only") || errors.contains("the server speaks TLS"), "{errors}");
    let ca = certs.join("ca.pem").display().to_string();
    let (shown, errors, code) = run(&certs, "", &[&tail[..], &["--ca", &ca]].concat(), "").await;
    assert_eq!((shown.as_str(), code), ("", 1));
    assert!(errors.contains("the server wants to see a certificate, and none is configured"), "{errors}");
    let misled = ["tail", "my-app", "--no-follow", "--server", &server, "--server-name", "doppler"];
    let (_, errors, code) = run(&certs, "operator", &misled, "").await;
    assert_eq!(code, 1);
    assert!(errors.contains("the server's certificate CN=reverselogproxy is not for the name doppler"), "{errors}");
    assert!(!errors.contains("hydrant up"), "it is up: {errors}");
    let (_, errors, code) = run(&certs, "", &["tail", "my-app", "--cert", "a.pem"], "").await;
    assert_eq!(code, 2);
    assert!(errors.contains("there is no --ca (or HYDRANT_CA) and no --key (or HYDRANT_KEY)"), "{errors}");
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_uses_renewed_certificates_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let up = pipeline_over(&certs).await;
    let path = certs.display().to_string();
    let before = std::fs::read(certs.join("doppler.pem")).unwrap();
    let (said, _, code) = run(&certs, "", &["certs", "init", "--dir", &path, "--renew", "--days", "40"], "").await;
    assert_eq!(code, 0, "{said}");
    assert_ne!(std::fs::read(certs.join("doppler.pem")).unwrap(), before);
    let ports = [
        (up.agent().admin, vec!["agent_grpc", "agent_doppler"]),
        (up.doppler().admin, vec!["doppler_grpc"]),
        (up.traffic_controller().admin, vec!["traffic_controller_grpc", "traffic_controller_doppler"]),
        (up.adapters().admin, vec!["adapters_doppler", "adapters_agent"]),
    ];
    let name = "hydrant_certificate_reloads_total";
    for (admin, certificates) in ports {
        for certificate in certificates {
            until(admin, |now| sum(now, name, &format!("\"{certificate}\"")) == 1).await;
        }
        assert_eq!(sum(&metrics(admin).await, "hydrant_certificate_reload_failed", ""), 0);
    }
    let agent = up.agent().grpc.to_string();
    let (_, said, code) = run(&certs, "operator", &["emit", "my-app", "--agent", &agent], "one\n").await;
    assert_eq!((said.as_str(), code), ("hydrant: 1 line for my-app: 1 delivered\n", 0));
    up.shutdown().await.unwrap();
}
