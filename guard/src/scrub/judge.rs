//! Is this value a secret? Shape and entropy checks for values that stand where a secret would.

use super::ascii;

/// Values that name the absence, the kind or the place of a secret.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "abc", "absent", "admin", "anonymous", "any", "asdf", "auth", "authentication",
    "authorization", "basic", "bearer", "blank", "bool", "boolean", "bytes", "changeit",
    "changeme", "char", "confidential", "correct", "credentials", "custom", "default", "denied",
    "disabled", "dummy", "empty", "enabled", "encrypted", "env", "error", "example", "expired",
    "fail", "failed", "fake", "false", "fixme", "foo", "foobar", "forbidden", "found",
    "generated", "given", "hash", "hashed", "here", "hidden", "id", "incorrect", "insecure",
    "invalid", "is", "jwt", "key", "leaked", "literal", "login", "lost", "manual", "masked",
    "max", "min", "missing", "mock", "n/a", "na", "needed", "never", "new", "nil", "no", "none",
    "not", "null", "number", "object", "off", "ok", "old", "omitted", "on", "optional", "pass",
    "passed", "passphrase", "passwd", "password", "pending", "placeholder", "private", "prompt",
    "protected", "public", "pwd", "random", "readonly", "redacted", "rejected", "removed",
    "replaceme", "required", "reset", "revoked", "rotated", "sample", "secret", "secrets",
    "secure", "set", "shared", "some", "str", "strict", "string", "strong", "submit", "success",
    "tba", "tbd", "test", "text", "tmp", "todo", "token", "true", "type", "undefined", "unknown",
    "unset", "uuid", "valid", "value", "varchar", "weak", "wrong", "xyz", "yes", "your",
];

/// Fragments of a value made of words that show it to be an instruction to the reader.
#[rustfmt::skip]
const STAND_IN_FRAGMENTS: &[&str] = &[
    "changeme", "change-me", "change_me", "dummy", "enter", "example", "fake", "fixme", "goes-here",
    "insert", "my-api", "my_api", "my-secret", "my_secret", "my-token", "my_token", "mysecret",
    "mytoken", "placeholder", "redacted", "replace", "sample", "some-", "some_", "todo", "your",
];

/// First names of expressions that read a secret from elsewhere.
#[rustfmt::skip]
const REFERENCE_ROOTS: &[&str] = &[
    "args", "arn", "cfg", "conf", "config", "ctx", "data", "env", "file", "http", "https", "local",
    "module", "op", "options", "os", "params", "process", "props", "req", "request", "secrets",
    "self", "settings", "ssm", "state", "this", "var", "vault",
];

fn is_ident(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// True for what stands in for a secret: nothing, a mask, a template, a reference to another place,
/// a word such as `none` or `changeme`, an instruction such as `<your key here>`.
pub(super) fn is_stand_in(value: &str) -> bool {
    let value = value.trim();
    let bare = value.trim_end_matches(['.', ',', '?', '!', ':', ';']);
    if bare.is_empty() || is_mask(bare) || is_template(bare) || is_reference(bare) || is_code(bare)
    {
        return true;
    }
    if bare.len() > 64 {
        return false;
    }
    let lower = bare.to_ascii_lowercase();
    if STOP_WORDS.binary_search(&lower.as_str()).is_ok() {
        return true;
    }
    is_words(bare)
        && STAND_IN_FRAGMENTS
            .iter()
            .any(|fragment| lower.contains(fragment))
}

fn is_mask(value: &str) -> bool {
    value
        .chars()
        .all(|c| matches!(c, '*' | 'x' | 'X' | '.' | '•' | '#' | '-' | '_' | '?' | '…'))
        || value.ends_with("***")
        || value.starts_with("***")
        || value.ends_with("...")
        || value.ends_with('…')
}

fn is_template(value: &str) -> bool {
    let bytes = value.as_bytes();
    let wrapped = |open: &str, close: &str| value.starts_with(open) && value.ends_with(close);
    let variable = value.strip_prefix('$').is_some_and(|name| {
        let upper = name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let lower = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        !name.is_empty() && (upper || lower)
    });
    variable
        || value.contains("${")
        || value.contains("{{")
        || value.contains("<%")
        || [
            "$(", "%(", "#{", "@{", "!Ref", "!Sub", "!vault", "!secret", "ENC[", "ENC(",
        ]
        .iter()
        .any(|open| value.starts_with(open))
        || wrapped("<", ">")
        || wrapped("{", "}")
        || wrapped("[", "]")
        || wrapped("(", ")")
        || (bytes.len() > 2 && wrapped("%", "%"))
        || matches!(value, "%s" | "%v" | "%d" | "%q" | "{}" | "$")
}

/// A type or a number as source code writes it: `&str`, `*mut`, `&[u8]`, `__u32`, `2147483781u32`.
fn is_code(value: &str) -> bool {
    if let Some(pointee) = value.strip_prefix(['&', '*']) {
        let lower = |rest: &str| rest.bytes().all(|b| b.is_ascii_lowercase());
        return pointee.starts_with(['[', '\'']) || lower(pointee);
    }
    let bare = value.trim_start_matches(['-', '_']);
    let digits = ascii::run(bare.as_bytes(), 0, |b| b.is_ascii_digit());
    let width = bare[digits..].strip_prefix(['u', 'i', 'f']);
    width.is_some_and(|width| matches!(width, "8" | "16" | "32" | "64" | "128" | "size"))
}

/// A path, a URL, a dotted name of letters, or a name under a known root.
fn is_reference(value: &str) -> bool {
    let bytes = value.as_bytes();
    if value.starts_with("//") || value.contains("://") {
        return true;
    }
    let path = ["/", "./", "../", "~/", "C:\\"]
        .iter()
        .any(|root| value.starts_with(root));
    if path {
        return !value.split(['/', '\\']).any(is_mixed);
    }
    let root = ascii::run(bytes, 0, is_ident);
    let after = &value[root..];
    let joined = after.starts_with(['.', '[', ':']) || after.starts_with("->");
    if root > 0 && after.starts_with("::") {
        return true;
    }
    if joined && REFERENCE_ROOTS.contains(&value[..root].to_ascii_lowercase().as_str()) {
        return true;
    }
    let dotted = value.contains('.') || value.contains("::") || value.contains("->");
    let segments = || {
        value
            .split(['.', ':', '>', '-'])
            .filter(|segment| !segment.is_empty())
    };
    dotted
        && segments().count() > 1
        && segments().all(|segment| {
            segment
                .bytes()
                .all(|b| b.is_ascii_alphabetic() || b == b'_')
        })
}

/// Lower case, upper case and a digit in one piece: not a name that a person gives.
fn is_mixed(value: &str) -> bool {
    let has = |class: fn(&u8) -> bool| value.bytes().any(|b| class(&b));
    has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)
}

/// True when the value reads as words: pieces of letters of one case, capitalised or in camel case,
/// of at most 16 letters (24 in camel case), each with at most four digits behind it.
pub(super) fn is_words(value: &str) -> bool {
    value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .all(|piece| {
            let bytes = piece.as_bytes();
            let letters = ascii::run(bytes, 0, |b| b.is_ascii_alphabetic());
            let digits = &bytes[letters..];
            let tail = bytes.get(1..letters).unwrap_or_default();
            let one_case = tail.iter().all(u8::is_ascii_lowercase)
                || bytes[..letters].iter().all(u8::is_ascii_uppercase);
            let word =
                (one_case && letters <= 16) || (is_camel(&bytes[..letters]) && letters <= 24);
            word && digits.len() <= 4 && digits.iter().all(u8::is_ascii_digit)
        })
}

/// Humps of three letters or more: `userCredentials`.
fn is_camel(letters: &[u8]) -> bool {
    let humps = letters.chunk_by(|_, next| next.is_ascii_lowercase());
    humps.map(<[u8]>::len).min() >= Some(3)
}

/// Letters and digits that do not read as words.
pub(super) fn is_random(value: &str) -> bool {
    value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().any(|b| b.is_ascii_alphabetic())
        && !is_words(value)
        && entropy_bits(value) >= 1.5
}

/// Shannon entropy of the value's bytes, in bits for each byte, 0..=8.
pub(super) fn entropy_bits(value: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for b in value.bytes() {
        counts[usize::from(b)] += 1;
    }
    let length = f64::from(u32::try_from(value.len()).unwrap_or(u32::MAX).max(1));
    let share = |&count: &u32| f64::from(count) / length;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(share)
        .map(|p| -p * p.log2())
        .sum()
}

/// A date or time such as `2024-01-02T10:00:00Z`.
pub(super) fn is_time(value: &str) -> bool {
    let bytes = value.as_bytes();
    let digits = |from: usize, to: usize| {
        bytes
            .get(from..to)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let day = digits(0, 4) && digits(5, 7) && digits(8, 10);
    day && bytes[4] == bytes[7] && matches!(bytes[4], b'-' | b'/' | b'.')
}

/// `0x` or nothing, then exactly 64 hexadecimal digits: the form of a raw 32-byte key.
pub(super) fn is_hex_key(value: &str) -> bool {
    let digits = value.strip_prefix("0x").unwrap_or(value);
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted_for_the_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn stand_ins_are_told_from_secrets() {
        for value in [
            "",
            "none",
            "NONE",
            "changeme?",
            "${VAR}",
            "$DB_PASSWORD",
            "$(cat key)",
            "{{ key }}",
            "<your key here>",
            "xxxxxxxx",
            "********",
            "sk-***",
            "os.environ",
            "process.env.KEY",
            "config.secret",
            "/run/secrets/db",
            "https://host/path",
            "your_api_key",
            "%s",
            "%PASS%",
            "your-key-123",
            "&str",
            "*mut",
            "&[u8]",
            "__u32",
            "2147483781u32",
            "Key::from_x8(y)",
            "n/a",
            "self.password",
            "vault:secret/db",
            "settings['X']",
            "abc...",
        ] {
            assert!(is_stand_in(value), "{value}");
        }
        for value in [
            "hunter2",
            "Tr0ub4dor&3",
            "$ecr3t",
            "/x9Kq2LmZ0pR",
            "correcthorse",
            "a.b1c2",
            "p@ss",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ] {
            assert!(!is_stand_in(value), "{value}");
        }
    }

    #[test]
    fn words_are_told_from_random_letters_and_digits() {
        for value in [
            "db-credentials-v2",
            "Refresh_Token",
            "hunter2",
            "ABC",
            "userCredentials_0",
            "api/v1/key2024",
        ] {
            assert!(is_words(value) && !is_random(value), "{value}");
        }
        for value in ["a1b2c3d4e5f6", "9f86d081884c7d65", "Zx9Kq2Lm"] {
            assert!(!is_words(value) && is_random(value), "{value}");
        }
    }
}
