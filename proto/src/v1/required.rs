//! The fields that v1 requires: prost decodes a message without them, v1 readers refuse it.

use smallvec::SmallVec;

use crate::raw::wire::{Fields, WireType};

/// A required field that a v1 payload does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("required field {field} of {message} is missing")]
pub struct Missing {
    /// The message that lacks it.
    pub message: &'static str,
    /// Its name.
    pub field: &'static str,
}

/// Checks a payload that prost has decoded, bodies of every event type included.
pub(super) fn check(payload: &[u8]) -> Result<(), Missing> {
    ENVELOPE.check(&[payload])
}

/// What one message type requires. Field numbers are below 32.
struct Shape {
    name: &'static str,
    required: &'static [(u32, &'static str)],
    /// Fields that are messages with required fields.
    messages: &'static [(u32, &'static Shape)],
}

impl Shape {
    /// `pieces` are all occurrences of one message: readers merge them, so each may hold a part of what is required.
    fn check(&self, pieces: &[&[u8]]) -> Result<(), Missing> {
        let mut seen = 0_u32;
        each_field(pieces, |number, _| seen |= 1_u32.checked_shl(number).unwrap_or(0));
        for &(number, field) in self.required {
            if seen & 1 << number == 0 {
                return Err(Missing { message: self.name, field });
            }
        }
        for &(number, shape) in self.messages {
            if seen & 1 << number != 0 {
                let mut inner: SmallVec<[&[u8]; 1]> = SmallVec::new();
                each_field(pieces, |found, bytes| inner.extend(bytes.filter(|_| found == number)));
                shape.check(&inner)?;
            }
        }
        Ok(())
    }
}

/// Calls `visit` with the number of every field, and its bytes if it is length-delimited.
fn each_field<'a>(pieces: &[&'a [u8]], mut visit: impl FnMut(u32, Option<&'a [u8]>)) {
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while !fields.is_done() {
            let Ok((number, wire_type)) = fields.key() else { return };
            if wire_type == WireType::Len {
                let Ok(bytes) = fields.bytes() else { return };
                visit(number, Some(bytes));
            } else if fields.skip(number, wire_type).is_ok() {
                visit(number, None);
            } else {
                return;
            }
        }
    }
}

static ENVELOPE: Shape = Shape {
    name: "Envelope",
    required: &[(1, "origin"), (2, "eventType")],
    messages: &[
        (7, &HTTP_START_STOP),
        (8, &LOG_MESSAGE),
        (9, &VALUE_METRIC),
        (10, &COUNTER_EVENT),
        (11, &ERROR),
        (12, &CONTAINER_METRIC),
    ],
};

static HTTP_START_STOP: Shape = Shape {
    name: "HttpStartStop",
    required: &[
        (1, "startTimestamp"),
        (2, "stopTimestamp"),
        (3, "requestId"),
        (4, "peerType"),
        (5, "method"),
        (6, "uri"),
        (7, "remoteAddress"),
        (8, "userAgent"),
        (9, "statusCode"),
        (10, "contentLength"),
    ],
    messages: &[(3, &UUID), (12, &UUID)],
};

static LOG_MESSAGE: Shape =
    Shape { name: "LogMessage", required: &[(1, "message"), (2, "message_type"), (3, "timestamp")], messages: &[] };

static VALUE_METRIC: Shape =
    Shape { name: "ValueMetric", required: &[(1, "name"), (2, "value"), (3, "unit")], messages: &[] };

static COUNTER_EVENT: Shape = Shape { name: "CounterEvent", required: &[(1, "name"), (2, "delta")], messages: &[] };

static ERROR: Shape = Shape { name: "Error", required: &[(1, "source"), (2, "code"), (3, "message")], messages: &[] };

static CONTAINER_METRIC: Shape = Shape {
    name: "ContainerMetric",
    required: &[(1, "applicationId"), (2, "instanceIndex"), (3, "cpuPercentage"), (4, "memoryBytes"), (5, "diskBytes")],
    messages: &[],
};

static UUID: Shape = Shape { name: "UUID", required: &[(1, "low"), (2, "high")], messages: &[] };
