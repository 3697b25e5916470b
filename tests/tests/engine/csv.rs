//! Market files that cannot be read.

use std::io::Write as _;

use crate::harness::small;

const HEAD: &str = "Ticker,Date,Open,High,Low,Close,Volume";
const GOOD: &str = "AAPL,2000-03-01,118.56,132.06,118.5,130.31,9616100";

#[test]
fn a_bad_market_file_is_refused_with_its_line_and_nothing_is_appended() {
    let engine = small();
    let head = engine.head();
    let cases = [
        (
            "missing column",
            format!("Ticker,Date,Open,High,Low,Close\n{GOOD}\n"),
            1,
        ),
        (
            "missing cell",
            format!("{HEAD}\n{GOOD}\nAAPL,2000-03-02,127.0,127.94\n"),
            3,
        ),
        (
            "bad number",
            format!("{HEAD}\n{GOOD}\nAAPL,2000-03-02,12x,127.94,120.69,122.0,1\n"),
            3,
        ),
        (
            "not a number",
            format!("{HEAD}\n{GOOD}\nAAPL,2000-03-02,NaN,127.94,120.69,122.0,1\n"),
            3,
        ),
        (
            "negative",
            format!("{HEAD}\n{GOOD}\nAAPL,2000-03-02,-127,127.94,120.69,122.0,1\n"),
            3,
        ),
        (
            "out of order",
            format!("{HEAD}\n{GOOD}\nAAPL,2000-02-01,127,127.94,120.69,122.0,1\n"),
            3,
        ),
        ("twice", format!("{HEAD}\n{GOOD}\n{GOOD}\n"), 3),
        (
            "no date",
            format!("{HEAD}\nAAPL,2000-13-01,118.56,132.06,118.5,130.31,9616100\n"),
            2,
        ),
        (
            "high below low",
            format!("{HEAD}\nAAPL,2000-03-01,118.56,100,118.5,130.31,9616100\n"),
            2,
        ),
    ];
    for (name, text, line) in cases {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let done = engine.run(&["trade", file.path().to_str().unwrap(), "--json"]);
        let problem = done.fails(2, "invalid-csv");
        assert_eq!(problem["line"], line, "{name}: {problem}");
    }
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("binary", &[0, 159, 146, 150, 7, 10, 1]),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let done = engine.run(&["trade", file.path().to_str().unwrap(), "--json"]);
        assert_eq!(
            done.fails(2, "invalid-csv")["code"],
            "invalid-csv",
            "{name}"
        );
    }
    engine
        .run(&["trade", "/nowhere/at/all.csv", "--json"])
        .fails(2, "invalid-usage");
    assert_eq!(engine.head(), head, "nothing is appended");
}
