use std::{fmt::Write, path::Path};

use sovereign_guard::scrub::{Label, Scrubber};

struct Case {
    line: usize,
    input: String,
    expected: String,
}

/// Expands `«ab*3»` and `\u{200B}`; see `tests/scrub/README.md`.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\u{") {
        let end = at + rest[at..].find('}').expect("an escape ends in a brace");
        let code = u32::from_str_radix(&rest[at + 3..end], 16).expect("an escape is hexadecimal");
        write!(
            out,
            "{}{}",
            &rest[..at],
            char::from_u32(code).expect("a character")
        )
        .expect("room");
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    while let Some(at) = out.find('«') {
        let end = at + out[at..].find('»').expect("a repetition is closed");
        let (piece, times) = out[at + 2..end]
            .rsplit_once('*')
            .expect("a repetition has a star");
        let repeated = piece.repeat(times.parse().expect("a repetition counts"));
        out.replace_range(at..end + '»'.len_utf8(), &repeated);
    }
    out
}

fn cases(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).expect("a case file is readable");
    let mut cases: Vec<Case> = Vec::new();
    let mut last = ' ';
    for (at, line) in text.lines().enumerate() {
        let mark = line.chars().next().unwrap_or(' ');
        let body = expand(line.get(2..).unwrap_or_default());
        match mark {
            '=' => cases.push(Case {
                line: at + 1,
                input: body.clone(),
                expected: body,
            }),
            '<' if last == '<' => {
                let case = cases.last_mut().expect("a case was begun");
                case.input = format!("{}\n{body}", case.input);
            }
            '<' => cases.push(Case {
                line: at + 1,
                input: body,
                expected: String::new(),
            }),
            '>' => {
                let case = cases.last_mut().expect("a case was begun");
                let joint = if last == '>' { "\n" } else { "" };
                case.expected = format!("{}{joint}{body}", case.expected);
            }
            '#' | ' ' => {}
            other => panic!("{}:{}: unknown mark {other:?}", file.display(), at + 1),
        }
        last = mark;
    }
    cases
}

#[test]
fn every_case_file_gives_what_it_says() {
    let scrubber = Scrubber::standard();
    // cargo runs tests in the folder of their package
    let folder = Path::new("tests/scrub");
    let mut failures = String::new();
    let mut count = 0;
    for name in ["tokens", "assigned", "wallets", "seeds", "addresses"] {
        let file = folder.join(name).with_extension("txt");
        for case in cases(&file) {
            count += 1;
            let scrubbed = scrubber.scrub(&case.input);
            if scrubbed.text() != case.expected {
                writeln!(
                    failures,
                    "{name}.txt:{}\n  input    {:?}\n  expected {:?}\n  found    {:?}\n  {:?}",
                    case.line,
                    case.input,
                    case.expected,
                    scrubbed.text(),
                    scrubbed.findings(),
                )
                .expect("room");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 120, "only {count} cases were read");
}

#[test]
fn findings_say_where_in_the_input_and_on_which_line() {
    let input = "first\né \u{200B}１92.0.2.7 and\r\npassword: hunter2\n";
    let scrubbed = Scrubber::standard().scrub(input);
    let at: Vec<_> = scrubbed
        .findings()
        .iter()
        .map(|found| {
            (
                found.label,
                found.rule,
                &input[found.start..found.end],
                found.line,
            )
        })
        .collect();
    assert_eq!(
        at,
        [
            (Label::IpAddress, "ipv4-address", "１92.0.2.7", 2),
            (Label::Password, "assigned-password", "hunter2", 3),
        ]
    );
    let json = serde_json::to_value(&scrubbed.findings()[1]).expect("a finding is JSON");
    let expected = serde_json::json!({
        "label": "PASSWORD", "rule": "assigned-password", "start": 39, "end": 46, "line": 3
    });
    assert_eq!(json, expected);
}
