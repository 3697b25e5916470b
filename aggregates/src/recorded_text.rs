//! For the tests of this crate.

use sovereign_schemas::Text;
use sovereign_schemas::avro::{Reader, Wire as _};

/// Recorded text: nothing but the guard makes new ones, and these are read back as if it had.
pub(crate) fn recorded_text() -> Text {
    let mut datum = vec![0; 16];
    datum.push(0);
    datum.extend([0; 12]);
    datum.extend([4, b'{', b'}']);
    Text::take(&mut Reader::new(&datum)).unwrap()
}
