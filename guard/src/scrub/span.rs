//! Places in a text: collecting, merging and replacing them.

use std::borrow::Cow;

use super::{Label, ascii};

/// A place that a detector wants replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) label: Label,
    pub(super) rule: &'static str,
    /// True for rules that know the exact shape; they name the finding when lengths are equal.
    pub(super) specific: bool,
}

/// A place in the input that will be replaced, with the label of its longest candidate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) label: Label,
    pub(super) rule: &'static str,
    /// Length and kind of the candidate that gave the label.
    weight: (usize, bool),
}

impl Span {
    pub(super) fn whole(input: &str) -> Self {
        let weight = (input.len(), true);
        Self {
            start: 0,
            end: input.len(),
            label: Label::Text,
            rule: "unstable-text",
            weight,
        }
    }
}

/// The input with its spans replaced, and the way back.
pub(super) struct Rendered<'a> {
    pub(super) text: Cow<'a, str>,
    /// For each span: where its placeholder lies in `text`, and where the span lies in the input.
    placed: Vec<Placed>,
}

struct Placed {
    start: usize,
    end: usize,
    input_start: usize,
    input_end: usize,
}

/// Replaces sorted, disjoint spans by their placeholders.
pub(super) fn render<'a>(input: &'a str, spans: &[Span]) -> Rendered<'a> {
    if spans.is_empty() {
        return Rendered {
            text: Cow::Borrowed(input),
            placed: Vec::new(),
        };
    }
    let mut text = String::with_capacity(input.len());
    let mut placed = Vec::with_capacity(spans.len());
    let mut copied = 0;
    for span in spans {
        text.push_str(&input[copied..span.start]);
        let start = text.len();
        text.push('[');
        text.push_str(span.label.as_str());
        text.push_str("_REDACTED]");
        let (input_start, input_end) = (span.start, span.end);
        placed.push(Placed {
            start,
            end: text.len(),
            input_start,
            input_end,
        });
        copied = span.end;
    }
    text.push_str(&input[copied..]);
    Rendered {
        text: Cow::Owned(text),
        placed,
    }
}

impl Rendered<'_> {
    /// The span of the input that a candidate in the rendered text stands for.
    pub(super) fn to_input(&self, candidate: &Candidate) -> Span {
        let start = self.offset(candidate.start, |inside| inside.input_start);
        let end = self.offset(candidate.end, |inside| inside.input_end);
        Span {
            start,
            end,
            label: candidate.label,
            rule: candidate.rule,
            weight: (end - start, candidate.specific),
        }
    }

    fn offset(&self, at: usize, edge: impl Fn(&Placed) -> usize) -> usize {
        let after = self.placed.partition_point(|placed| placed.start < at);
        let Some(before) = after.checked_sub(1).map(|last| &self.placed[last]) else {
            return at;
        };
        if at < before.end {
            edge(before)
        } else {
            before.input_end + (at - before.end)
        }
    }
}

/// Sorts the spans and joins those that overlap; the longest gives the label, then the more
/// specific, then the first.
pub(super) fn merge(spans: &mut Vec<Span>) {
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.rule));
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans.drain(..) {
        match merged.last_mut() {
            Some(last) if span.start < last.end => {
                if span.weight > last.weight {
                    (last.label, last.rule, last.weight) = (span.label, span.rule, span.weight);
                }
                last.end = last.end.max(span.end);
            }
            _ => merged.push(span),
        }
    }
    *spans = merged;
}

/// Drops candidates inside a placeholder and widens those that cut one, so that a placeholder is
/// never a finding and never broken.
pub(super) fn widen_over_placeholders(text: &str, found: &mut Vec<Candidate>) {
    if found.is_empty() {
        return;
    }
    let placeholders: Vec<(usize, usize)> = ascii::placeholders(text).collect();
    if placeholders.is_empty() {
        return;
    }
    found.retain_mut(|candidate| {
        let first = placeholders.partition_point(|&(_, end)| end <= candidate.start);
        let Some(&(start, end)) = placeholders.get(first) else {
            return true;
        };
        if start <= candidate.start && candidate.end <= end {
            return false;
        }
        if start < candidate.start {
            candidate.start = start;
        }
        let after = placeholders.partition_point(|&(start, _)| start < candidate.end);
        if let Some(&(_, end)) = after.checked_sub(1).and_then(|last| placeholders.get(last)) {
            candidate.end = candidate.end.max(end);
        }
        true
    });
}
