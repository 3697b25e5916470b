use std::collections::BTreeMap;

use sovereign_schemas::{DepartmentId, Position, RecordedEvent, Timestamp};

use crate::table::{Stored, storable};
use crate::view::add;
use crate::{FoldError, View, table};

/// One row a department: how many events of which type its topic carries. Reads headers only, so
/// it counts events of types that this build does not know as well.
#[derive(Debug)]
pub struct Departments;

table! {
    /// A department.
    DepartmentRow = "departments" version 1 key department: DepartmentId;
    /// Its number.
    department: DepartmentId,
    /// Events so far.
    events: i64,
    /// Events so far by type.
    events_by_type: BTreeMap<String, i64>,
    /// Position of its first event.
    first_position: Position,
    /// Position of its newest event.
    last_position: Position,
    /// When the ledger took its newest event.
    updated_at: Timestamp,
}

impl View for Departments {
    const NAME: &'static str = DepartmentRow::NAME;
    const VERSION: u32 = DepartmentRow::VERSION;
    type Key = DepartmentId;
    type Row = DepartmentRow;

    fn key(event: &RecordedEvent) -> Option<DepartmentId> {
        Some(event.header.department)
    }

    fn row_key(row: &DepartmentRow) -> DepartmentId {
        row.department
    }

    fn fold(row: &mut Option<DepartmentRow>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        let row = row.get_or_insert_with(|| DepartmentRow {
            department: header.department,
            events: 0,
            events_by_type: BTreeMap::new(),
            first_position: header.position,
            last_position: header.position,
            updated_at: storable(header.recorded_at),
        });
        // no type has more events than the department, so one check is enough
        row.events = add(row.events, 1, "events")?;
        match row.events_by_type.get_mut(&*header.event_type) {
            Some(count) => *count += 1,
            None => {
                row.events_by_type.insert(header.event_type.to_string(), 1);
            }
        }
        row.last_position = header.position;
        row.updated_at = storable(header.recorded_at);
        Ok(())
    }
}
