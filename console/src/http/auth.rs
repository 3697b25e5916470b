use axum::http::{HeaderMap, header};

use crate::Token;

/// Whether the request carries the token as `Authorization: Bearer …`.
pub(crate) fn holds_token(token: &Token, headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|offered| token.matches(offered))
}

/// What is offered as `Authorization: Bearer …`, in the only header of that name.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, offered) = split_once_blank(value.as_bytes())?;
    scheme
        .eq_ignore_ascii_case(b"bearer")
        .then(|| offered.trim_ascii())
}

fn split_once_blank(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|b| *b == b' ')?;
    Some((&value[..at], &value[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_bearer_token_only() {
        let token = Token::new("0123456789abcdef").unwrap();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            holds_token(&token, &headers)
        };
        assert!(with("Bearer 0123456789abcdef"));
        assert!(with("bearer  0123456789abcdef"));
        assert!(!with("Basic 0123456789abcdef"));
        assert!(!with("Bearer 0123456789abcde0"));
        assert!(!with("Bearer"));
        assert!(!with("0123456789abcdef"));
        assert!(!holds_token(&token, &HeaderMap::new()));
    }
}
