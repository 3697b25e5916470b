//! Effects, and what says where they may go: nothing panics, what is taken reads the same again,
//! and a path or base that is taken means to the WHATWG reading what it means here.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use sovereign_effects::{
    Base, Effect, EffectId, Outcome, Path, Programs, Recording, Request, Script, Tools,
};
use url::Url;

// the first byte chooses the part, so that the seeds of one do not mix with those of another
fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    if *which == 0 {
        return effect(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match which {
        1 => path(text),
        2 => base(text),
        3 => tools(text),
        4 => drop(Programs::parse(text)),
        _ => drop(Script::parse(text)),
    }
});

fn effect(bytes: &[u8]) {
    let Ok(effect) = Effect::from_json(bytes) else {
        return;
    };
    let again = Effect::from_json(&effect.canonical()).expect("what is written is read");
    assert_eq!(again, effect);
    assert_eq!(again.digest(), effect.digest());
    let request = Request::new(EffectId::of("fuzz", 0), effect);
    let script = Script::default();
    let outcome = script.answer(&request, &Tools::default());
    assert_eq!(outcome, script.answer(&request, &Tools::default()));
    let text = serde_json::to_string(&outcome).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Outcome>(&text).expect("the same"),
        outcome
    );
    assert!(matches!(
        Recording::default().answer(&request),
        Outcome::Failed { retry: false, .. }
    ));
}

fn path(text: &str) {
    let Ok(path) = text.parse::<Path>() else {
        return;
    };
    let base: Base = "https://example.com/v2".parse().expect("a base");
    let url = Url::parse(&base.url(&path)).expect("a URL");
    assert_eq!(url.path(), format!("/v2{text}"));
    assert_eq!(url.host_str(), Some("example.com"));
    assert!(url.query().is_none() && url.fragment().is_none());
    assert!(path.holds(&path));
}

fn base(text: &str) {
    let Ok(base) = text.parse::<Base>() else {
        return;
    };
    assert_eq!(base.to_string().parse::<Base>().as_ref(), Ok(&base));
    // names that the reference refuses are unknown to every resolver as well
    if let Ok(url) = Url::parse(text) {
        let host = url
            .host_str()
            .expect("http has a host")
            .trim_matches(['[', ']']);
        match base.host().parse::<IpAddr>() {
            // an address has several spellings
            Ok(address) => assert_eq!(host.parse(), Ok(address)),
            Err(_) => assert_eq!(host, base.host()),
        }
        assert_eq!(url.port_or_known_default(), Some(base.port()));
        assert!(url.username().is_empty() && url.password().is_none());
    }
}

fn tools(text: &str) {
    let Ok(tools) = Tools::parse(text) else {
        return;
    };
    for (_, tool) in tools.iter() {
        assert!(!tool.methods.is_empty() && !tool.paths.is_empty());
        assert!(tool.time_ms_max <= 600_000 && tool.answer_bytes_max <= 163_840);
        assert!(tool.secret.is_none() || tool.base.tls() || !tool.reach.is_empty());
    }
}
