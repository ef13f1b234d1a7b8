//! The bundle format: what goes in comes out, and nothing else does.
#![allow(clippy::unwrap_used)]

use isolet_crds::bundle::{
    Bundle, BundleError, Digest, FunctionIdentity, MAX_CHUNK_BYTES, MAX_COMPRESSED_BYTES,
    MAX_PAYLOAD_BYTES, Manifest, ModuleEntry, ModuleKind, SecretValues,
};
use isolet_crds::{ResolvedLimits, Route};

/// A bundle of modules with these contents.
fn bundle(contents: &[&[u8]]) -> Bundle {
    let modules = contents
        .iter()
        .enumerate()
        .map(|(n, content)| ModuleEntry {
            path: format!("m{n:03}.js"),
            kind: ModuleKind::JavaScript,
            bytes: content.len() as u64,
            mappings: (n == 0).then(|| "AAAA".to_owned()),
        })
        .collect();
    Bundle {
        manifest: Manifest {
            format: Manifest::FORMAT,
            function: FunctionIdentity {
                namespace: "default".into(),
                name: "hello".into(),
                uid: "u".into(),
            },
            main: "m000.js".into(),
            modules,
            routes: vec![Route {
                host: "a.example.com".into(),
                path: "/".into(),
            }],
            env: [("B".to_owned(), "2".to_owned()), ("A".into(), "1".into())].into(),
            secret_env: [("S".to_owned(), "uid@1".to_owned())].into(),
            limits: ResolvedLimits::default(),
            egress: vec!["example.com".into()],
            suspend: false,
        },
        contents: contents.iter().map(|content| content.to_vec()).collect(),
    }
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

fn damaged(result: Result<Bundle, BundleError>) -> String {
    match result {
        Err(BundleError::Damaged(why)) => why,
        other => panic!("not damaged: {other:?}"),
    }
}

#[test]
fn roundtrip() {
    for contents in [
        &[][..],
        &[&b""[..]],
        &[b"export default {}", b"", "grüß\0\u{1}".as_bytes()],
    ] {
        let original = bundle(contents);
        let encoded = original.encode().unwrap();
        assert_eq!(
            Bundle::decode(&encoded.bytes, Some(&encoded.digest)).unwrap(),
            original
        );
        assert_eq!(Bundle::decode(&encoded.bytes, None).unwrap(), original);
    }
}

#[test]
fn equal_bundles_have_equal_bytes_and_others_do_not() {
    let one = bundle(&[b"a", b"b"]).encode().unwrap();
    assert_eq!(one, bundle(&[b"a", b"b"]).encode().unwrap());
    // The boundary between two modules is part of the content.
    assert_ne!(
        bundle(&[b"ab", b"c"]).encode().unwrap().digest,
        bundle(&[b"a", b"bc"]).encode().unwrap().digest
    );
    let mut other = bundle(&[b"a", b"b"]);
    other.manifest.suspend = true;
    assert_ne!(one.digest, other.encode().unwrap().digest);
}

#[test]
fn the_digest_is_checked() {
    let encoded = bundle(&[b"a"]).encode().unwrap();
    let other = bundle(&[b"b"]).encode().unwrap();
    let error = Bundle::decode(&encoded.bytes, Some(&other.digest)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the bundle's digest is {}, not {}",
            encoded.digest.as_str(),
            other.digest.as_str()
        )
    );
    assert_eq!(encoded.digest.revision().len(), 12);
    assert!(encoded.digest.as_str()["sha256:".len()..].starts_with(encoded.digest.revision()));
}

#[test]
fn a_digest_is_parsed_strictly() {
    let text = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(Digest::parse(&text).unwrap().as_str(), text);
    for wrong in [
        "",
        "sha256:",
        &text[..70],
        &format!("{text}0"),
        &text.to_uppercase(),
        &text.replace("0a", "0g"),
        &text.replace("sha256", "sha512"),
    ] {
        assert_eq!(Digest::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn truncated_anywhere_is_an_error() {
    let encoded = bundle(&[b"export default { fetch() {} }", b"second"])
        .encode()
        .unwrap();
    for length in 0..encoded.bytes.len() {
        assert!(
            Bundle::decode(&encoded.bytes[..length], None).is_err(),
            "{length} bytes were taken"
        );
    }
    // The payload cut at every boundary, compressed whole.
    let payload = zstd::bulk::decompress(&encoded.bytes, 1 << 20).unwrap();
    for length in 0..payload.len() {
        let bytes = zstd::bulk::compress(&payload[..length], 1).unwrap();
        damaged(Bundle::decode(&bytes, None));
    }
    let mut longer = payload;
    longer.push(0);
    assert_eq!(
        damaged(Bundle::decode(
            &zstd::bulk::compress(&longer, 1).unwrap(),
            None
        )),
        "bytes after the last module"
    );
}

#[test]
fn every_flipped_bit_is_found() {
    let encoded = bundle(&[b"export default { fetch() {} }"])
        .encode()
        .unwrap();
    for at in 0..encoded.bytes.len() {
        for bit in 0..8 {
            let mut bytes = encoded.bytes.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(decoded) = Bundle::decode(&bytes, Some(&encoded.digest)) {
                // A bit of the frame's header that changes nothing.
                assert_eq!(
                    decoded,
                    Bundle::decode(&encoded.bytes, None).unwrap(),
                    "byte {at} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_errors() {
    let manifest = |bytes: u64| {
        let mut bundle = bundle(&[b"abc"]);
        bundle.manifest.modules[0].bytes = bytes;
        let manifest = serde_json::to_vec(&bundle.manifest).unwrap();
        let mut payload = u32::try_from(manifest.len())
            .unwrap()
            .to_le_bytes()
            .to_vec();
        payload.extend(manifest);
        payload.extend(b"abc");
        Bundle::decode(&zstd::bulk::compress(&payload, 1).unwrap(), None)
    };
    assert!(manifest(3).is_ok());
    for bytes in [2, 4, u64::from(u32::MAX), u64::MAX] {
        damaged(manifest(bytes));
    }
    let huge = zstd::bulk::compress(&[0xff, 0xff, 0xff, 0xff, b'{'], 1).unwrap();
    assert_eq!(
        damaged(Bundle::decode(&huge, None)),
        "the manifest is cut off"
    );
}

#[test]
fn another_format_says_so() {
    let payload = |manifest: &str| {
        let mut payload = u32::try_from(manifest.len())
            .unwrap()
            .to_le_bytes()
            .to_vec();
        payload.extend(manifest.as_bytes());
        Bundle::decode(&zstd::bulk::compress(&payload, 1).unwrap(), None)
    };
    // A later format may have fields that this one does not know.
    let error = payload(r#"{"format": 2, "new": []}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bundle has format 2; this runtime reads format 1"
    );
    damaged(payload("{}"));
    damaged(payload("not json"));
    damaged(payload(r#"{"format": 1}"#));
}

#[test]
fn a_decompression_bomb_ends_at_the_bound() {
    // 4 GiB of zeros, in far less than the compressed bound.
    let mut bomb = Vec::new();
    let zeros = vec![0; 1 << 20];
    let mut encoder = zstd::stream::write::Encoder::new(&mut bomb, 3).unwrap();
    for _ in 0..4096 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    encoder.finish().unwrap();
    assert!(bomb.len() < MAX_COMPRESSED_BYTES / 4);
    let before = peak_resident_kib();
    let error = Bundle::decode(&bomb, None).unwrap_err();
    assert!(
        matches!(error, BundleError::TooLarge { bytes, limit, .. } if bytes == limit + 1),
        "{error}"
    );
    // The payload so far, doubled while it grows, the decoder's window, and what other tests use meanwhile.
    let used = peak_resident_kib() - before;
    assert!(
        used < 512 << 10,
        "decoding used {used} KiB for a bomb of 4 GiB"
    );
    assert!(SecretValues::decode(&bomb).is_err());
}

/// Peak resident memory of this process; 0 where there is no /proc.
fn peak_resident_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_frame_that_asks_for_a_huge_window_is_refused() {
    // Magic, then a frame header: no content size, window descriptor with exponent 31, so 2 TiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    damaged(Bundle::decode(&frame, None));
}

#[test]
fn both_sides_refuse_what_is_too_large() {
    let payload = vec![b'a'; MAX_PAYLOAD_BYTES];
    let error = bundle(&[&payload]).encode().unwrap_err();
    assert!(
        matches!(
            error,
            BundleError::TooLarge {
                limit: MAX_PAYLOAD_BYTES,
                ..
            }
        ),
        "{error}"
    );
    let incompressible = noise(MAX_COMPRESSED_BYTES + 1);
    let error = bundle(&[&incompressible]).encode().unwrap_err();
    assert!(
        matches!(
            error,
            BundleError::TooLarge {
                limit: MAX_COMPRESSED_BYTES,
                ..
            }
        ),
        "{error}"
    );
    let error = Bundle::decode(&incompressible, None).unwrap_err();
    assert!(matches!(error, BundleError::TooLarge { .. }), "{error}");
}

#[test]
fn chunks_fit_an_object_each_and_add_up() {
    for size in [0, MAX_CHUNK_BYTES / 2, 3 * MAX_CHUNK_BYTES] {
        let encoded = bundle(&[&noise(size)]).encode().unwrap();
        let chunks: Vec<&[u8]> = encoded.chunks().collect();
        assert_eq!(chunks.len(), encoded.bytes.len().div_ceil(MAX_CHUNK_BYTES));
        assert!(
            chunks
                .iter()
                .all(|chunk| !chunk.is_empty() && chunk.len() <= MAX_CHUNK_BYTES)
        );
        assert_eq!(chunks.concat(), encoded.bytes);
        // In base64, beside its metadata.
        assert!(MAX_CHUNK_BYTES.div_ceil(3) * 4 < (1 << 20) - (32 << 10));
    }
}

#[test]
fn secret_values_roundtrip_and_stay_out_of_errors_and_debug_output() {
    let values = SecretValues {
        values: [("TOKEN".to_owned(), "hush-hush".to_owned())].into(),
    };
    let bytes = values.encode().unwrap();
    assert!(SecretValues::decode(&bytes).unwrap() == values);
    let debug = format!("{values:?}");
    assert!(
        debug.contains("TOKEN") && !debug.contains("hush-hush"),
        "{debug}"
    );
    for text in [
        r#"{"values":{"A":hush-hush}}"#,
        r#""hush-hush""#,
        "hush-hush",
    ] {
        let bytes = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        let error = SecretValues::decode(&bytes).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
    for length in 0..bytes.len() {
        assert!(SecretValues::decode(&bytes[..length]).is_err());
    }
}
