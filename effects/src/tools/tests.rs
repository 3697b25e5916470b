use sovereign_schemas::ErrorCode;

use super::*;

const TOOL: &str =
    "[tools.t]\nbase = \"https://example.com\"\nmethods = [\"GET\"]\npaths = [\"/\"]\n";

#[test]
fn every_setting_has_a_default_that_is_tight() {
    let tools = Tools::parse(TOOL).unwrap();
    let tool = tools.tool(&"t".parse().unwrap()).unwrap();
    assert!(tool.reach.is_empty() && tool.secret.is_none() && tool.idempotency_header.is_none());
    assert_eq!((tool.connect_ms_max, tool.time_ms_max), (5_000, 30_000));
    assert_eq!(
        (
            tool.request_bytes_max,
            tool.answer_bytes_max,
            tool.head_bytes_max
        ),
        (65_536, 65_536, 16_384)
    );
    assert_eq!(
        (tool.redirects_max, tool.concurrent_max, tool.rate),
        (0, 8, None)
    );
    assert_eq!(tool.on_5xx, ServerErrors::InDoubt);
    assert_eq!(tool.chat_path.as_str(), "/v1/chat/completions");
    assert!(tools.exchange(&Exchange::mock_name()).is_some());
}

#[test]
fn bad_tools_are_named_with_line_and_setting() {
    let with = |line: &str| format!("{TOOL}{line}\n");
    let cases = [
        (with("colour = 1"), 5, ""),
        (with("time_ms_max = 0"), 5, "tools.t.time_ms_max"),
        (with("time_ms_max = 600001"), 5, "tools.t.time_ms_max"),
        (
            with("answer_bytes_max = 10737418240"),
            5,
            "tools.t.answer_bytes_max",
        ),
        (with("head_bytes_max = 100"), 5, "tools.t.head_bytes_max"),
        (with("redirects_max = 6"), 5, "tools.t.redirects_max"),
        (with("concurrent_max = 0"), 5, "tools.t.concurrent_max"),
        (with("calls_per_s_max = 0"), 5, ""),
        (with("burst_max = 3"), 5, "tools.t.burst_max"),
        (with("reach = [\"public\"]"), 5, ""),
        (with("reach = [\"moon\"]"), 5, ""),
        (with("on_5xx = \"done\""), 5, ""),
        (
            with("idempotency_header = \"a b\""),
            5,
            "tools.t.idempotency_header",
        ),
        (
            with("idempotency_header = \"Content-Length\""),
            5,
            "tools.t.idempotency_header",
        ),
        (with("secret_header = \"x\""), 5, "tools.t.secret"),
        (with("secret = \"../../etc/passwd\""), 5, "tools.t.secret"),
        (with("secret = \".hidden\""), 5, "tools.t.secret"),
        (
            with("secret = \"s\"\nsecret_header = \"host\""),
            6,
            "tools.t.secret_header",
        ),
        (
            with("secret = \"s\"\nsecret_prefix = \"a\\r\\nb\""),
            6,
            "tools.t.secret_prefix",
        ),
        (
            with("headers = { transfer-encoding = \"chunked\" }"),
            5,
            "tools.t.headers",
        ),
        (with("headers = { x = \"a\\nb: c\" }"), 5, "tools.t.headers"),
        (with("chat_path = \"/../x\""), 5, "tools.t.chat_path"),
        (
            TOOL.replace("https://example.com", "https://me:pw@example.com"),
            2,
            "tools.t.base",
        ),
        (
            TOOL.replace("https", "http").replace("\n[", "") + "secret = \"s\"",
            2,
            "tools.t.base",
        ),
        (TOOL.replace("[\"GET\"]", "[]"), 3, "tools.t.methods"),
        (TOOL.replace("GET", "TRACE"), 3, ""),
        (TOOL.replace("[\"/\"]", "[\"/a/../b\"]"), 4, "tools.t.paths"),
        (TOOL.replace("[\"/\"]", "[]"), 1, "tools.t"),
        (TOOL.replace("tools.t]", "tools.\"a b\"]"), 1, "tools.a b"),
        (
            "[exchanges.e]\nslippage_bps_max = 9999\n".to_owned(),
            2,
            "exchanges.e.slippage_bps_max",
        ),
        (
            "[exchanges.e]\ncommission_min = \"-1\"\n".to_owned(),
            2,
            "exchanges.e.commission_min",
        ),
        (
            "[exchanges.e]\nlatency_ms_min = 9\nlatency_ms_max = 1\n".to_owned(),
            1,
            "exchanges.e",
        ),
    ];
    for (text, line, field) in cases {
        let problem = Tools::parse(&text).unwrap_err();
        assert_eq!(problem.code, ErrorCode::InvalidConfig);
        assert_eq!(problem.line, Some(line), "{text}\n{problem}");
        assert_eq!(
            problem.field.as_deref().unwrap_or_default(),
            field,
            "{text}\n{problem}"
        );
    }
    assert!(Tools::parse(&"#".repeat(70_000)).is_err());
}

#[test]
fn bad_programs_are_named_with_line_and_setting() {
    let with = |line: &str| format!("[processes.p]\npath = \"/bin/p\"\n{line}\n");
    for (text, line, field) in [
        (with("colour = 1"), 3, ""),
        (with("folder = \"here\""), 3, "processes.p.folder"),
        (with("flags = [\"x\"]"), 3, "processes.p.flags"),
        (
            with("output_bytes_max = 100000000"),
            3,
            "processes.p.output_bytes_max",
        ),
        (
            with("more_arguments_max = 65"),
            3,
            "processes.p.more_arguments_max",
        ),
        (with("not_done_exits = [256]"), 3, ""),
        (
            "[processes.p]\npath = \"p\"\n".to_owned(),
            2,
            "processes.p.path",
        ),
    ] {
        let problem = Programs::parse(&text).unwrap_err();
        assert_eq!(problem.line, Some(line), "{text}\n{problem}");
        assert_eq!(
            problem.field.as_deref().unwrap_or_default(),
            field,
            "{text}\n{problem}"
        );
    }
}
