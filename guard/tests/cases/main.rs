//! The scrubber's case files, its properties, and the published vectors of sealed text.

mod scrub_cases;
mod scrub_properties;
mod seal_vectors;
