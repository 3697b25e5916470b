use std::io::{Read as _, Write as _};

use sovereign_guard::scrub::{Finding, Scrubber};
use sovereign_schemas::{ErrorCode, Problem};

use crate::args::ScrubArgs;
use crate::failure::{Result, file, internal};
use crate::output::broken_pipe;

/// At most so many bytes are scrubbed at once.
const INPUT_BYTES_MAX: u64 = 256 << 20;

/// Scrubbed text to stdout; findings, which hold no text, to a file.
pub(crate) fn run(args: &ScrubArgs) -> Result<()> {
    let input = read(args)?;
    let scrubber = Scrubber::standard();
    let mut text = String::with_capacity(input.len());
    let mut findings: Vec<Finding> = Vec::new();
    if args.lines {
        let mut start = 0;
        for (index, line) in input.split_inclusive('\n').enumerate() {
            let content = line.strip_suffix('\n').unwrap_or(line);
            let scrubbed = scrubber.scrub(content);
            findings.extend(scrubbed.findings().iter().map(|f| Finding {
                start: start + f.start,
                end: start + f.end,
                line: index + 1,
                ..f.clone()
            }));
            text.push_str(scrubbed.text());
            text.push_str(&line[content.len()..]);
            start += line.len();
        }
    } else {
        let (scrubbed, found) = scrubber.scrub(&input).into_parts();
        text = scrubbed;
        findings = found;
    }
    if let Some(path) = &args.findings {
        let mut out = Vec::new();
        for finding in &findings {
            serde_json::to_writer(&mut out, finding).map_err(internal)?;
            out.push(b'\n');
        }
        std::fs::write(path, out).map_err(|e| file(path, &e))?;
    }
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(broken_pipe)
}

fn read(args: &ScrubArgs) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(INPUT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(&args.file)
            .and_then(|f| f.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    read.map_err(|e| file(&args.file, &e))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(
            Problem::new(ErrorCode::TextTooLong, "input is above 256 MiB")
                .remedy("split the input")
                .into(),
        );
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::new(
            ErrorCode::InvalidText,
            format!("input is not utf-8 at byte {at}"),
        )
        .remedy("convert the input to UTF-8")
        .into()
    })
}
