//! `use_preferred_tags` both ways against `rlp-tags.jsonl`: v2 envelopes as they came, v1 payloads by way of `from_v1`.

use bytes::Bytes;
use hydrant_proto::raw::tags::Form;
use hydrant_proto::raw::{Batch, Limits, Selection};
use hydrant_proto::v1::from_v1;
use prost::Message as _;

use super::vectors::{self, bytes, comparable, id, list};

#[test]
fn both_forms_are_what_was_captured() {
    let mut v1 = 0;
    for vector in vectors::read("rlp-tags", 36) {
        let id = id(&vector);
        let mut input = bytes(&vector["input"]);
        if vector["ingress"].as_str().unwrap().starts_with("v1") {
            v1 += 1;
            input = from_v1(&input).unwrap().encode_to_vec();
        }
        let (batch, refused) = Batch::check_one(Bytes::from(input), &Limits::default());
        assert_eq!(refused.total(), 0, "{id}");
        let selection = Selection::from(batch);
        for (form, key) in
            [(Form::Preferred, "use_preferred_tags_true"), (Form::Deprecated, "use_preferred_tags_false")]
        {
            let ours = form.convert(&selection);
            let ours: Vec<_> = ours.envelopes().map(comparable).collect();
            let captured: Vec<_> = list(&vector[key]).iter().map(|envelope| comparable(envelope)).collect();
            assert_eq!(captured.len(), 1, "{id}");
            assert_eq!(ours, captured, "{id} {key}");
        }
    }
    assert_eq!(v1, 3);
}
