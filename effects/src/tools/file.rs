//! Tools and exchanges as people write them: TOML, read strictly, every complaint with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use serde::Deserialize;
use sovereign_schemas::{Decimal, ErrorCode, Identifier, Problem};
use toml::Spanned;

use super::{CallRate, Network, SecretUse, ServerErrors, Tool, Tools};
use crate::exchange::Exchange;
use crate::{Base, Method, Path};

/// Longest text, bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
const TOOLS_MAX: usize = 256;
const PATHS_MAX: usize = 64;
const HEADERS_MAX: usize = 16;
const HEADER_BYTES_MAX: usize = 1_024;

const TIME_MS: RangeInclusive<u64> = 1..=600_000;
const CONNECT_MS_DEFAULT: u64 = 5_000;
const TIME_MS_DEFAULT: u64 = 30_000;
const BODY_BYTES: RangeInclusive<u64> = 0..=(160 << 10);
const BODY_BYTES_DEFAULT: u64 = 64 << 10;
/// The least is that of the HTTP library's buffer.
const HEAD_BYTES: RangeInclusive<u64> = 8_192..=262_144;
const HEAD_BYTES_DEFAULT: u64 = 16_384;
const REDIRECTS: RangeInclusive<u64> = 0..=5;
const REDIRECTS_DEFAULT: u64 = 0;
const CONCURRENT: RangeInclusive<u64> = 1..=256;
const CONCURRENT_DEFAULT: u64 = 8;
const LATENCY_MS: RangeInclusive<u64> = 0..=60_000;
const SLIPPAGE_BPS: RangeInclusive<u64> = 0..=5_000;

/// What is wrong, and where: a byte offset into the text that the tools were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins.
    pub offset: usize,
    /// The setting, such as `tools.orders.base`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// What was expected.
    pub expected: Option<String>,
}

impl Fault {
    /// As a problem of the text.
    #[must_use]
    pub fn problem(self, code: ErrorCode, text: &str) -> Problem {
        let before = text.as_bytes().iter().take(self.offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count() as u64;
        let problem = Problem::new(code, self.message)
            .line(line)
            .field(self.field);
        match self.expected {
            Some(expected) => problem.expected(expected),
            None => problem,
        }
    }
}

/// The sections as they are written; a field of a larger file for each.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolTexts {
    /// Sections `[tools.NAME]`.
    #[serde(default)]
    pub tools: BTreeMap<Spanned<String>, ToolText>,
    /// Sections `[exchanges.NAME]`.
    #[serde(default)]
    pub exchanges: BTreeMap<Spanned<String>, ExchangeText>,
}

/// One section `[tools.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolText {
    base: Spanned<String>,
    methods: Spanned<BTreeSet<Method>>,
    paths: Vec<Spanned<String>>,
    #[serde(default)]
    reach: BTreeSet<Network>,
    #[serde(default)]
    idempotency_header: Option<Spanned<String>>,
    #[serde(default)]
    secret: Option<Spanned<Identifier>>,
    #[serde(default)]
    secret_header: Option<Spanned<String>>,
    #[serde(default)]
    secret_prefix: Option<Spanned<String>>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    on_5xx: ServerErrors,
    #[serde(default)]
    chat_path: Option<Spanned<String>>,
    #[serde(default)]
    connect_ms_max: Option<Spanned<u64>>,
    #[serde(default)]
    time_ms_max: Option<Spanned<u64>>,
    #[serde(default)]
    request_bytes_max: Option<Spanned<u64>>,
    #[serde(default)]
    head_bytes_max: Option<Spanned<u64>>,
    #[serde(default)]
    answer_bytes_max: Option<Spanned<u64>>,
    #[serde(default)]
    redirects_max: Option<Spanned<u64>>,
    #[serde(default)]
    concurrent_max: Option<Spanned<u64>>,
    #[serde(default)]
    calls_per_s_max: Option<Spanned<NonZeroU32>>,
    #[serde(default)]
    burst_max: Option<Spanned<NonZeroU32>>,
}

/// One section `[exchanges.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeText {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    commission_per_mille: Option<Spanned<Decimal>>,
    #[serde(default)]
    commission_min: Option<Spanned<Decimal>>,
    #[serde(default)]
    slippage_bps_max: Option<Spanned<u64>>,
    #[serde(default)]
    latency_ms_min: Option<Spanned<u64>>,
    #[serde(default)]
    latency_ms_max: Option<Spanned<u64>>,
}

impl Tools {
    /// Reads sections `[tools.NAME]` and `[exchanges.NAME]` and nothing else.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`], with line and setting.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let texts: ToolTexts = read(text)?;
        Self::check(texts).map_err(|fault| fault.problem(ErrorCode::InvalidConfig, text))
    }

    /// Checks what was read as part of a larger file.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(texts: ToolTexts) -> Result<Self, Fault> {
        let mut tools = BTreeMap::new();
        for (name, text) in texts.tools {
            let at = At::of("tools", &name);
            if tools.len() == TOOLS_MAX {
                return Err(at.fault(format!("more than {TOOLS_MAX} tools")));
            }
            tools.insert(at.identifier()?, tool(&at, text)?);
        }
        let mut exchanges = BTreeMap::new();
        for (name, text) in texts.exchanges {
            let at = At::of("exchanges", &name);
            if exchanges.len() == TOOLS_MAX {
                return Err(at.fault(format!("more than {TOOLS_MAX} exchanges")));
            }
            exchanges.insert(at.identifier()?, exchange(&at, &text)?);
        }
        Ok(Self::new(tools, exchanges))
    }
}

/// Reads TOML; complaints name the line.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Problem> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(
            Problem::new(ErrorCode::InvalidConfig, "the file is too long")
                .found(format!("{} bytes", text.len()))
                .expected(format!("at most {TEXT_BYTES_MAX} bytes")),
        );
    }
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..start]
            .iter()
            .filter(|b| **b == b'\n')
            .count() as u64;
        Problem::new(ErrorCode::InvalidConfig, error.message()).line(line)
    })
}

/// One section, to complain about its settings.
pub(super) struct At<'t> {
    section: &'static str,
    name: &'t str,
    start: usize,
}

impl<'t> At<'t> {
    pub(super) fn of(section: &'static str, name: &'t Spanned<String>) -> Self {
        Self {
            section,
            name: name.get_ref(),
            start: name.span().start,
        }
    }

    pub(super) fn identifier(&self) -> Result<Identifier, Fault> {
        let read = self.name.parse::<Identifier>();
        read.map_err(|error| self.fault(format!("the name {error}")))
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault {
            offset: self.start,
            field: format!("{}.{}", self.section, self.name),
            message: message.into(),
            expected: None,
        }
    }

    pub(super) fn wrong<T>(
        &self,
        field: &str,
        value: &Spanned<T>,
        message: impl Into<String>,
    ) -> Fault {
        Fault {
            offset: value.span().start,
            field: format!("{}.{}.{field}", self.section, self.name),
            message: message.into(),
            expected: None,
        }
    }

    pub(super) fn number(
        &self,
        field: &str,
        value: Option<&Spanned<u64>>,
        range: &RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, Fault> {
        let Some(value) = value else {
            return Ok(default);
        };
        if range.contains(value.get_ref()) {
            return Ok(*value.get_ref());
        }
        let mut fault = self.wrong(field, value, "is out of range");
        fault.expected = Some(format!("{} to {}", range.start(), range.end()));
        Err(fault)
    }

    pub(super) fn size(
        &self,
        field: &str,
        value: Option<&Spanned<u64>>,
        range: &RangeInclusive<u64>,
        default: u64,
    ) -> Result<usize, Fault> {
        let number = self.number(field, value, range, default)?;
        usize::try_from(number).map_err(|_| self.fault(format!("{field} is out of range")))
    }

    fn parsed<T: std::str::FromStr<Err = crate::PathError>>(
        &self,
        field: &str,
        value: &Spanned<String>,
    ) -> Result<T, Fault> {
        let read = value.get_ref().parse::<T>();
        read.map_err(|error| self.wrong(field, value, error.to_string()))
    }

    fn header(&self, field: &str, value: &Spanned<String>) -> Result<String, Fault> {
        let name = value.get_ref().to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
            return Err(self.wrong(field, value, "is no name of a header"));
        }
        if OWN_HEADERS.contains(&name.as_str()) {
            return Err(self.wrong(field, value, "is a header that the sink writes by itself"));
        }
        Ok(name)
    }
}

/// Headers that frame or route a request.
const OWN_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A value of a header: visible ASCII and single spaces, so that no line can end in it.
fn is_header_value(text: &str) -> bool {
    text.len() <= HEADER_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn tool(at: &At<'_>, text: ToolText) -> Result<Tool, Fault> {
    let base: Base = at.parsed("base", &text.base)?;
    if text.methods.get_ref().is_empty() {
        return Err(at.wrong("methods", &text.methods, "names no method"));
    }
    if text.paths.is_empty() || text.paths.len() > PATHS_MAX {
        let mut fault = at.fault("paths: names no path, or too many");
        fault.expected = Some(format!("1 to {PATHS_MAX} paths; \"/\" is all"));
        return Err(fault);
    }
    let paths = text.paths.iter().map(|path| at.parsed("paths", path));
    let chat_path = match &text.chat_path {
        Some(path) => at.parsed("chat_path", path)?,
        None => default_chat_path(at)?,
    };
    let secret = secret(at, &text)?;
    if secret.is_some() && !base.tls() && text.reach.is_empty() {
        let message = "sends a secret over the Internet in the clear: use https";
        return Err(at.wrong("base", &text.base, message));
    }
    let idempotency_header = match &text.idempotency_header {
        Some(name) => Some(at.header("idempotency_header", name)?),
        None => None,
    };
    let count =
        |field, value: &Option<_>, range, default| at.number(field, value.as_ref(), range, default);
    let size =
        |field, value: &Option<_>, range, default| at.size(field, value.as_ref(), range, default);
    Ok(Tool {
        base,
        methods: text.methods.get_ref().clone(),
        paths: paths.collect::<Result<_, _>>()?,
        reach: text.reach.clone(),
        idempotency_header,
        secret,
        headers: headers(at, &text)?,
        on_5xx: text.on_5xx,
        chat_path,
        connect_ms_max: count(
            "connect_ms_max",
            &text.connect_ms_max,
            &TIME_MS,
            CONNECT_MS_DEFAULT,
        )?,
        time_ms_max: count("time_ms_max", &text.time_ms_max, &TIME_MS, TIME_MS_DEFAULT)?,
        request_bytes_max: size(
            "request_bytes_max",
            &text.request_bytes_max,
            &BODY_BYTES,
            BODY_BYTES_DEFAULT,
        )?,
        head_bytes_max: size(
            "head_bytes_max",
            &text.head_bytes_max,
            &HEAD_BYTES,
            HEAD_BYTES_DEFAULT,
        )?,
        answer_bytes_max: size(
            "answer_bytes_max",
            &text.answer_bytes_max,
            &BODY_BYTES,
            BODY_BYTES_DEFAULT,
        )?,
        redirects_max: u32::try_from(count(
            "redirects_max",
            &text.redirects_max,
            &REDIRECTS,
            REDIRECTS_DEFAULT,
        )?)
        .unwrap_or_default(),
        concurrent_max: size(
            "concurrent_max",
            &text.concurrent_max,
            &CONCURRENT,
            CONCURRENT_DEFAULT,
        )?,
        rate: rate(at, &text)?,
    })
}

fn default_chat_path(at: &At<'_>) -> Result<Path, Fault> {
    let path = "/v1/chat/completions".parse();
    path.map_err(|error: crate::PathError| at.fault(error.to_string()))
}

fn secret(at: &At<'_>, text: &ToolText) -> Result<Option<SecretUse>, Fault> {
    let Some(name) = &text.secret else {
        let lone = text.secret_header.as_ref().or(text.secret_prefix.as_ref());
        return match lone {
            Some(lone) => Err(at.wrong("secret", lone, "is missing: whose header is this?")),
            None => Ok(None),
        };
    };
    // it becomes the name of a file
    if name.get_ref().as_str().contains('/') || name.get_ref().as_str().starts_with('.') {
        return Err(at.wrong("secret", name, "must hold no / and not begin with a dot"));
    }
    let header = match &text.secret_header {
        Some(header) => at.header("secret_header", header)?,
        None => "authorization".to_owned(),
    };
    let prefix = match &text.secret_prefix {
        Some(prefix) if !is_header_value(prefix.get_ref()) => {
            return Err(at.wrong("secret_prefix", prefix, "is no value of a header"));
        }
        Some(prefix) => prefix.get_ref().clone(),
        None if text.secret_header.is_none() => "Bearer ".to_owned(),
        None => String::new(),
    };
    Ok(Some(SecretUse {
        name: name.get_ref().clone(),
        header,
        prefix,
    }))
}

fn headers(at: &At<'_>, text: &ToolText) -> Result<BTreeMap<String, String>, Fault> {
    let mut headers = BTreeMap::new();
    for (name, value) in &text.headers {
        if headers.len() == HEADERS_MAX {
            return Err(at.fault(format!("headers: more than {HEADERS_MAX}")));
        }
        if !is_header_value(value) {
            return Err(at.wrong("headers", name, "is no value of a header"));
        }
        headers.insert(at.header("headers", name)?, value.clone());
    }
    Ok(headers)
}

fn rate(at: &At<'_>, text: &ToolText) -> Result<Option<CallRate>, Fault> {
    match (&text.calls_per_s_max, &text.burst_max) {
        (None, None) => Ok(None),
        (None, Some(burst)) => Err(at.wrong("burst_max", burst, "needs calls_per_s_max beside it")),
        (Some(rate), burst) => {
            let per_second = *rate.get_ref();
            let burst = burst.as_ref().map_or(per_second, |burst| *burst.get_ref());
            Ok(Some(CallRate { per_second, burst }))
        }
    }
}

fn exchange(at: &At<'_>, text: &ExchangeText) -> Result<Exchange, Fault> {
    let mut exchange = Exchange {
        seed: text.seed,
        ..Exchange::default()
    };
    let amounts = [
        (
            "commission_per_mille",
            &text.commission_per_mille,
            &mut exchange.commission_per_mille,
        ),
        (
            "commission_min",
            &text.commission_min,
            &mut exchange.commission_min,
        ),
    ];
    let most = Decimal::from_int(1_000);
    for (field, value, target) in amounts {
        if let Some(value) = value {
            if value.get_ref().is_negative() || *value.get_ref() > most {
                let mut fault = at.wrong(field, value, "is out of range");
                fault.expected = Some("0 to 1000".to_owned());
                return Err(fault);
            }
            *target = *value.get_ref();
        }
    }
    let slippage = text.slippage_bps_max.as_ref();
    exchange.slippage_bps_max =
        u32::try_from(at.number("slippage_bps_max", slippage, &SLIPPAGE_BPS, 0)?)
            .unwrap_or_default();
    let least = at.number(
        "latency_ms_min",
        text.latency_ms_min.as_ref(),
        &LATENCY_MS,
        0,
    )?;
    let most = at.number(
        "latency_ms_max",
        text.latency_ms_max.as_ref(),
        &LATENCY_MS,
        least,
    )?;
    if most < least {
        return Err(at.fault("latency_ms_max is below latency_ms_min"));
    }
    (exchange.latency_ms_min, exchange.latency_ms_max) = (least, most);
    Ok(exchange)
}
