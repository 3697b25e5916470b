use std::collections::BTreeMap;
use std::io::Read as _;

use sovereign_schemas::{Date, Decimal, DecimalError, Digest, ErrorCode, Identifier, Problem};

use super::{
    BARS_MAX, Bar, FILE_BYTES_MAX, INSTRUMENT_CHARACTERS_MAX, INSTRUMENTS_MAX, MarketFile, Series,
    slug,
};

const COLUMNS: [&str; 7] = ["Ticker", "Date", "Open", "High", "Low", "Close", "Volume"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

fn invalid(line: u64, message: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidCsv, message).line(line)
}

impl MarketFile {
    /// Reads and checks a whole file: CSV with a header, plain or gzip. The columns Ticker, Date
    /// (`2000-03-01`), Open, High, Low, Close and Volume are found by name, in any case and order;
    /// other columns are ignored. Bars of one instrument must grow in time.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCsv`] with line, column, what was found and what was expected.
    ///
    /// # Examples
    /// ```
    /// use sovereign_agents::market::MarketFile;
    /// let csv = "Date,Ticker,Open,High,Low,Close,Volume\n2000-03-01,X,1,2,1,1.5,10\n";
    /// assert_eq!(MarketFile::parse(csv.as_bytes())?.bars(), 1);
    /// let bad = csv.replace("1.5", "NaN");
    /// assert_eq!(MarketFile::parse(bad.as_bytes()).unwrap_err().line, Some(2));
    /// # Ok::<(), sovereign_schemas::Problem>(())
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let digest = Digest::of(&[bytes]);
        let inflated;
        let text = if bytes.starts_with(&GZIP_MAGIC) {
            inflated = inflate(bytes)?;
            inflated.as_slice()
        } else {
            bytes
        };
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(invalid(
                1,
                format!("the file has more than {FILE_BYTES_MAX} bytes"),
            ));
        }
        let series = read_series(text)?;
        Ok(Self { digest, series })
    }
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut text = Vec::new();
    let mut input = flate2::read::MultiGzDecoder::new(bytes).take(FILE_BYTES_MAX + 1);
    input.read_to_end(&mut text).map_err(|_| {
        let lines = text.iter().filter(|b| **b == b'\n').count() as u64;
        invalid(lines + 1, "the gzip data is damaged or cut off here").expected("a whole gzip file")
    })?;
    Ok(text)
}

fn read_series(text: &[u8]) -> Result<BTreeMap<String, Series>, Problem> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text);
    let header = reader.headers().map_err(|e| csv_problem(&e))?.clone();
    let columns = find_columns(&header)?;
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    let mut count = 0;
    for record in reader.records() {
        let record = record.map_err(|e| csv_problem(&e))?;
        let row = Row {
            line: record.position().map_or(0, csv::Position::line),
            columns: &columns,
            record: &record,
        };
        count += 1;
        if count > BARS_MAX {
            return Err(invalid(
                row.line,
                format!("the file has more than {BARS_MAX} bars"),
            ));
        }
        add(&mut all, &row)?;
    }
    if all.is_empty() {
        return Err(invalid(2, "the file holds no bar").expected("one line a bar after the header"));
    }
    Ok(all)
}

fn csv_problem(error: &csv::Error) -> Problem {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => invalid(
            line,
            "the line has another number of fields than the header",
        )
        .found(len.to_string())
        .expected(expected_len.to_string()),
        csv::ErrorKind::Utf8 { .. } => {
            invalid(line, "the line is not UTF-8").expected("UTF-8 text")
        }
        _ => invalid(line, "the line is no CSV"),
    }
}

/// Where each of [`COLUMNS`] stands.
fn find_columns(header: &csv::StringRecord) -> Result<[usize; 7], Problem> {
    let mut found = [0; 7];
    for (place, name) in found.iter_mut().zip(COLUMNS) {
        let mut places = header
            .iter()
            .enumerate()
            .filter(|(_, h)| h.trim().eq_ignore_ascii_case(name));
        let names = || header.iter().collect::<Vec<_>>().join(",");
        *place = match (places.next(), places.next()) {
            (Some((at, _)), None) => at,
            (None, _) => {
                return Err(invalid(1, "a column is missing")
                    .field(name)
                    .found(names())
                    .expected(COLUMNS.join(",")));
            }
            (Some(_), Some(_)) => {
                return Err(invalid(1, "a column stands there twice")
                    .field(name)
                    .found(names()));
            }
        };
    }
    Ok(found)
}

struct Row<'a> {
    line: u64,
    columns: &'a [usize; 7],
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn text(&self, column: usize) -> &str {
        self.record
            .get(self.columns[column])
            .unwrap_or_default()
            .trim()
    }

    fn wrong(&self, column: usize, message: &str) -> Problem {
        invalid(self.line, message)
            .field(COLUMNS[column])
            .found(self.text(column))
    }

    fn number(&self, column: usize) -> Result<Decimal, Problem> {
        self.text(column).parse().map_err(|e: DecimalError| {
            self.wrong(column, "is no exact number").expected(match e {
                DecimalError::NotANumber => "digits with an optional point, such as 131.25",
                DecimalError::TooLarge => "at most 19 digits before the point",
                DecimalError::TooFine => "at most 9 digits after the point",
            })
        })
    }

    fn price(&self, column: usize) -> Result<Decimal, Problem> {
        let price = self.number(column)?;
        if price.is_positive() {
            Ok(price)
        } else {
            Err(self
                .wrong(column, "a price must be above zero")
                .expected("a number above 0"))
        }
    }

    fn bar(&self) -> Result<Bar, Problem> {
        let date: Date = self.text(1).parse().map_err(|_| {
            self.wrong(1, "is no day")
                .expected("a day such as 2000-03-01")
        })?;
        let bar = Bar {
            opened_at: date.midnight(),
            open: self.price(2)?,
            high: self.price(3)?,
            low: self.price(4)?,
            close: self.price(5)?,
            volume: self.number(6)?,
        };
        if bar.high < bar.low {
            let expected = format!("at least the low, {}", bar.low);
            return Err(self
                .wrong(3, "the high lies below the low")
                .expected(expected));
        }
        for (column, price) in [(2, bar.open), (5, bar.close)] {
            if price < bar.low || price > bar.high {
                let expected = format!("{} to {}", bar.low, bar.high);
                return Err(self
                    .wrong(column, "a price lies outside of low to high")
                    .expected(expected));
            }
        }
        if bar.volume.is_negative() {
            return Err(self
                .wrong(6, "a volume must not be negative")
                .expected("0 or more"));
        }
        Ok(bar)
    }
}

fn add(all: &mut BTreeMap<String, Series>, row: &Row<'_>) -> Result<(), Problem> {
    let name = row.text(0);
    let instrument: Identifier = name
        .parse()
        .map_err(|_| row.wrong(0, "is no name of an instrument"))?;
    if name.len() > INSTRUMENT_CHARACTERS_MAX {
        let expected = format!("at most {INSTRUMENT_CHARACTERS_MAX} characters");
        return Err(row.wrong(0, "the name is too long").expected(expected));
    }
    let bar = row.bar()?;
    if !all.contains_key(&slug(name)) && all.len() >= INSTRUMENTS_MAX {
        let expected = format!("at most {INSTRUMENTS_MAX} instruments");
        return Err(row.wrong(0, "one instrument too many").expected(expected));
    }
    let series = all.entry(slug(name)).or_insert_with(|| Series {
        instrument: instrument.clone(),
        bars: Vec::new(),
    });
    if series.instrument != instrument {
        return Err(row
            .wrong(0, "the instrument was spelt otherwise before")
            .expected(series.instrument.as_str()));
    }
    match series.bars.last() {
        Some(last) if bar.opened_at <= last.opened_at => {
            let what = if bar.opened_at == last.opened_at {
                "the day stands there twice for this instrument"
            } else {
                "days must grow for each instrument"
            };
            let after = last.opened_at.to_string();
            let after = after.split('T').next().unwrap_or_default();
            Err(row.wrong(1, what).expected(format!("a day after {after}")))
        }
        _ => {
            series.bars.push(bar);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const VENDORED: &[u8] = include_bytes!("../../data/stocks.csv.gz");

    const GOOD: &str = "Ticker,Date,Open,High,Low,Close,Volume,Adj Close\n\
                        AAPL,2000-03-01,118.56,132.06,118.5,130.31,9616100,4.18666280381\n\
                        AAPL,2000-03-02,127.0,127.94,120.69,122.0,2779100,nothing\n\
                        IBM,2000-03-01,102,105.5,100.06,100.25,10807800,1\n";

    #[test]
    fn reads_the_vendored_file_whole_and_exactly() {
        let file = MarketFile::parse(VENDORED).unwrap();
        let notice = include_str!("../../data/NOTICE.md");
        assert!(notice.contains(&file.digest().to_string()));
        let counts: Vec<_> = file.iter().map(|(slug, s)| (slug, s.bars.len())).collect();
        assert_eq!(
            counts,
            [
                ("aapl", 3270),
                ("fb", 196),
                ("goog", 2148),
                ("ibm", 3270),
                ("msft", 3270)
            ]
        );
        assert_eq!(file.bars(), 12_154);
        let first = &file.series("AAPL").unwrap().bars[0];
        assert_eq!(first.close.to_string(), "130.31");
        assert_eq!(first.opened_at.to_string(), "2000-03-01T00:00:00.000000Z");
    }

    #[test]
    fn a_bad_file_is_refused_whole_and_the_place_is_named() {
        let with = |from: &str, to: &str| GOOD.replacen(from, to, 1);
        let finer = "118.5600000001";
        let cases = [
            (with("Close,", "Last,"), 1, Some("Close")),
            (with("Open,", "Close,"), 1, Some("Open")),
            (with("Adj Close", "Close"), 1, Some("Close")),
            (with("118.56", "NaN"), 2, Some("Open")),
            (with("118.56", "-1"), 2, Some("Open")),
            (with("118.56", "1e2"), 2, Some("Open")),
            (with("118.56", ""), 2, Some("Open")),
            (with("118.56", finer), 2, Some("Open")),
            (with("118.56", &"9".repeat(40)), 2, Some("Open")),
            (with("132.06", "118"), 2, Some("High")),
            (with("130.31", "133"), 2, Some("Close")),
            (with("2779100", "-5"), 3, Some("Volume")),
            (with("2000-03-02", "2000-03-01"), 3, Some("Date")),
            (with("2000-03-02", "2000-02-29"), 3, Some("Date")),
            (with("2000-03-02", "2000-02-30"), 3, Some("Date")),
            (with("2000-03-02", "03/02/2000"), 3, Some("Date")),
            (with("IBM", "I BM"), 4, Some("Ticker")),
            (with("IBM", "aapl"), 4, Some("Ticker")),
            (with("IBM", &"I".repeat(33)), 4, Some("Ticker")),
            (with(",nothing", ""), 3, None),
            (GOOD.lines().next().unwrap().to_owned(), 2, None),
            (String::new(), 1, Some("Ticker")),
        ];
        for (text, line, field) in cases {
            let problem = MarketFile::parse(text.as_bytes()).unwrap_err();
            assert_eq!(problem.code, ErrorCode::InvalidCsv, "{text}");
            assert_eq!(problem.line, Some(line), "{problem}\n{text}");
            assert_eq!(problem.field.as_deref(), field, "{problem}\n{text}");
        }
        assert_eq!(MarketFile::parse(GOOD.as_bytes()).unwrap().bars(), 3);
    }

    #[test]
    fn binary_and_damaged_gzip_are_refused() {
        let mut latin = GOOD.as_bytes().to_vec();
        latin.extend_from_slice(b"IB\xff,2000-03-02,1,1,1,1,1,1\n");
        assert_eq!(MarketFile::parse(&latin).unwrap_err().line, Some(5));
        for cut in [3, 11, 5_000, VENDORED.len() / 2, VENDORED.len() - 1] {
            let problem = MarketFile::parse(&VENDORED[..cut]).unwrap_err();
            assert_eq!(problem.code, ErrorCode::InvalidCsv, "cut at {cut}");
            assert!(problem.line.is_some(), "cut at {cut}");
        }
        let mut flipped = VENDORED.to_vec();
        flipped[VENDORED.len() / 2] ^= 0x10;
        assert_eq!(
            MarketFile::parse(&flipped).unwrap_err().code,
            ErrorCode::InvalidCsv
        );
    }

    #[test]
    fn gzip_and_plain_give_the_same_bars() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(GOOD.as_bytes()).unwrap();
        let packed = MarketFile::parse(&gzip.finish().unwrap()).unwrap();
        let plain = MarketFile::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(packed.series, plain.series);
        assert_ne!(packed.digest(), plain.digest());
    }

    #[test]
    fn the_next_bar_is_found_by_time() {
        let file = MarketFile::parse(GOOD.as_bytes()).unwrap();
        let series = file.series("aapl").unwrap();
        let first = series.next_after(None).unwrap();
        let second = series.next_after(Some(first.opened_at)).unwrap();
        assert_eq!(second.close.to_string(), "122");
        assert_eq!(series.next_after(Some(second.opened_at)), None);
    }
}
