//! The envelope that figures are for.

use proto::v2;

/// A log of 200 bytes with ten tags.
pub(crate) fn envelope() -> v2::Envelope {
    let names = [
        "app_id",
        "app_name",
        "organization_id",
        "organization_name",
        "space_id",
        "space_name",
        "origin",
        "process_id",
        "job",
    ];
    let log = v2::Envelope::log("c0ffee00-1111-2222-3333-444455556666", vec![b'x'; 200]).at(1_700_000_000_123_456_789);
    let log = log.instance("0").tag("source_type", "APP/PROC/WEB");
    names.into_iter().fold(log, |log, name| log.tag(name, "c0ffee00-1111-2222-3333-444455556666"))
}
