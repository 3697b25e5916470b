//! Help pages as HTML: the little Markdown that `docs/errors` is written in.

include!(concat!(env!("OUT_DIR"), "/help.rs"));

/// The page of an error code; none if there is no such code.
pub(super) fn page(code: &str) -> Option<String> {
    let (_, markdown) = HELP.iter().find(|(known, _)| *known == code)?;
    let body = html(markdown);
    Some(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{code} · Sovereign</title>\
         <link rel=\"icon\" href=\"/pages/icon.svg\" type=\"image/svg+xml\">\
         <link rel=\"stylesheet\" href=\"/pages/style.css\"></head><body><header class=\"bar\">\
         <a class=\"brand\" href=\"/approvals\"><img src=\"/pages/icon.svg\" alt=\"\" width=\"22\" \
         height=\"22\">Sovereign</a></header><main class=\"page\">{body}</main></body></html>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Code, bold and links within a line.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            out.push_str(&format!("<code>{}</code>", escaped(part)));
            continue;
        }
        for (index, part) in part.split("**").enumerate() {
            let part = links(part);
            out.push_str(&if index % 2 == 1 {
                format!("<strong>{part}</strong>")
            } else {
                part
            });
        }
    }
    out
}

fn links(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, found)) = rest.split_once('[') {
        let parts = found
            .split_once("](")
            .and_then(|(label, to)| Some((label, to.split_once(')')?)));
        let Some((label, (to, after))) = parts else {
            break;
        };
        out.push_str(&escaped(before));
        let code = to
            .strip_suffix(".md")
            .filter(|name| HELP.iter().any(|(known, _)| known == name));
        out.push_str(&match code {
            Some(code) => format!("<a href=\"/errors/{code}\">{}</a>", escaped(label)),
            // other pages are in the repository
            None => escaped(label),
        });
        rest = after;
    }
    out + &escaped(rest)
}

/// What a line is, besides text.
enum Line<'a> {
    Heading(u8, &'a str),
    Item(&'static str, &'a str),
    Row(&'a str),
    Blank,
    Text(&'a str),
}

fn line(text: &str) -> Line<'_> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Line::Blank;
    }
    for (level, mark) in [(1, "# "), (2, "## "), (3, "### ")] {
        if let Some(rest) = trimmed.strip_prefix(mark) {
            return Line::Heading(level, rest);
        }
    }
    if let Some(rest) = trimmed.strip_prefix("- ") {
        return Line::Item("ul", rest);
    }
    if let Some((number, rest)) = trimmed.split_once(". ")
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
    {
        return Line::Item("ol", rest);
    }
    if trimmed.starts_with('|') {
        return Line::Row(trimmed);
    }
    Line::Text(trimmed)
}

fn html(markdown: &str) -> String {
    let (mut out, mut open, mut code) = (String::new(), "", false);
    let end = |out: &mut String, open: &mut &'static str| {
        if !open.is_empty() {
            out.push_str(&format!("</{open}>\n"));
            *open = "";
        }
    };
    for text in markdown.lines() {
        if text.trim_start().starts_with("```") {
            if !code {
                end(&mut out, &mut open);
            }
            out.push_str(if code { "</pre>\n" } else { "<pre>" });
            code = !code;
            continue;
        }
        if code {
            out.push_str(&escaped(text));
            out.push('\n');
            continue;
        }
        let wanted = match line(text) {
            Line::Item(kind, _) => kind,
            Line::Row(_) => "pre",
            Line::Text(_) if open == "p" || open == "ul" || open == "ol" => open,
            Line::Text(_) => "p",
            Line::Heading(..) | Line::Blank => "",
        };
        if wanted != open {
            end(&mut out, &mut open);
            if !wanted.is_empty() {
                out.push_str(&format!("<{wanted}>"));
            }
            open = wanted;
        }
        out.push_str(&match line(text) {
            Line::Heading(level, rest) => format!("<h{level}>{}</h{level}>\n", inline(rest)),
            Line::Item(_, rest) => format!("<li>{}", inline(rest)),
            Line::Row(rest) => format!("{}\n", escaped(rest)),
            Line::Text(rest) => format!("{} ", inline(rest)),
            Line::Blank => String::new(),
        });
    }
    end(&mut out, &mut open);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sovereign_schemas::ErrorCode;

    #[test]
    fn every_code_has_a_page_that_shows_markup_as_text() {
        for code in ErrorCode::ALL {
            let page = page(code.as_str()).unwrap_or_else(|| panic!("{code}"));
            for tag in ["pre", "p", "ul", "ol", "h1", "h2", "code", "strong", "a"] {
                let opened = page.matches(&format!("<{tag}>")).count()
                    + page.matches(&format!("<{tag} ")).count();
                assert_eq!(
                    opened,
                    page.matches(&format!("</{tag}>")).count(),
                    "{code} {tag}"
                );
            }
        }
        assert_eq!(page("../API"), None);
        let html = html(
            "# <b>\n\nsee `<i>` and [busy](busy.md) or [x](https://x.example)\n- **a**\n- b\n\n```\n<script>\n```\n",
        );
        assert_eq!(
            html,
            "<h1>&lt;b&gt;</h1>\n<p>see <code>&lt;i&gt;</code> and <a href=\"/errors/busy\">busy</a> \
             or x </p>\n<ul><li><strong>a</strong><li>b</ul>\n<pre>&lt;script&gt;\n</pre>\n"
        );
    }
}
