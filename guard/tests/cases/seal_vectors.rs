use serde::Deserialize;
use sovereign_guard::seal::{KeyPath, MasterKey, PuncturedKey, SealError, SubjectKey, open, seal};

const VECTORS: &str = include_str!("../seal-vectors.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    texts: Vec<TextVector>,
    wraps: Vec<WrapVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextVector {
    subject_key: String,
    index: u64,
    text_key: String,
    nonce: String,
    key_id: String,
    plaintext: String,
    sealed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrapVector {
    master_key: String,
    subject_key: String,
    nonce: String,
    key_id: String,
    wrapped: String,
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    unhex(hex).try_into().expect("the length of a field")
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let pairs = digits.map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn published_vectors_hold() {
    let vectors: Vectors = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    assert!(vectors.texts.len() >= 5 && !vectors.wraps.is_empty());
    for vector in &vectors.texts {
        let root = SubjectKey::from_hex(&vector.subject_key).expect("a key");
        let key = root.derive(vector.index).expect("a leaf");
        assert_eq!(hex(key.expose()), vector.text_key);
        let kept = KeyPath::new(&root).derive(vector.index).expect("a leaf");
        assert_eq!(kept.expose(), key.expose());

        let (nonce, key_id) = (bytes(&vector.nonce), bytes(&vector.key_id));
        let plaintext = vector.plaintext.as_bytes();
        let sealed = seal(&key, nonce, key_id, vector.index, plaintext).expect("short enough");
        assert_eq!(hex(&sealed), vector.sealed);
        let opened = open(&key, nonce, key_id, vector.index, &sealed).expect("authentic");
        assert_eq!(opened, plaintext);

        let mut punctured = PuncturedKey::new(&root);
        punctured.puncture(vector.index).expect("a leaf");
        let erased = punctured.derive(vector.index).expect_err("the key is gone");
        assert_eq!(
            erased,
            SealError::Erased {
                index: vector.index
            }
        );
    }
    for vector in &vectors.wraps {
        let master = MasterKey::from_hex(&vector.master_key).expect("a key");
        let subject = SubjectKey::from_hex(&vector.subject_key).expect("a key");
        let (nonce, key_id) = (bytes(&vector.nonce), bytes(&vector.key_id));
        let wrapped = master.wrap(&subject, nonce, key_id).expect("a key fits");
        assert_eq!(hex(&wrapped), vector.wrapped);
        let unwrapped = master.unwrap(&wrapped, nonce, key_id).expect("authentic");
        assert_eq!(unwrapped.expose(), subject.expose());
    }
}
