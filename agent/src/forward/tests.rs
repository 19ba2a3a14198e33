//! Tests of `forward`.

use super::*;

#[test]
fn section_3_2_files_name_a_port_or_why_they_do_not() {
    for (text, port) in [("ingress: 3460\n", 3460), ("ingress: \"3461\"\nprotocol: other\nmore: 1\n", 3461)] {
        assert_eq!(PortFile::parse(text), Ok(PortFile { ingress: port }), "{text}");
    }
    assert_eq!(PortFile { ingress: 3460 }.address().to_string(), "127.0.0.1:3460");
    assert_eq!(PortFile::parse("protocol: otelcol\ningress: 4317\n"), Err(PortFileError::Otel));
    for text in ["{}\n", "ingress: \"\"\n", "other: 1\n"] {
        assert_eq!(PortFile::parse(text), Err(PortFileError::NoPort), "{text}");
    }
    for text in ["ingress: 0\n", "ingress: 65536\n", "ingress: -1\n", "ingress: x\n"] {
        assert!(matches!(PortFile::parse(text), Err(PortFileError::Port(_))), "{text}");
    }
    for text in ["ingress: [\n", "- 1\n", "ingress: {a: 1}\n"] {
        assert!(matches!(PortFile::parse(text), Err(PortFileError::Yaml(_))), "{text}");
    }
}
