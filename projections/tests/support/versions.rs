//! Later versions of a view, as a later program would bring them.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;

use sovereign_projections::table::{Stored, storable};
use sovereign_projections::{FoldError, View, ViewSet, table};
use sovereign_schemas::{DepartmentId, Position, RecordedEvent, Timestamp};

/// As version 1, with one column more at the end, which may be null.
#[derive(Debug)]
pub struct DepartmentsV2;

table! {
    DepartmentRowV2 = "departments" version 2 key department: DepartmentId;
    department: DepartmentId,
    events: i64,
    events_by_type: BTreeMap<String, i64>,
    first_position: Position,
    last_position: Position,
    updated_at: Timestamp,
    last_actor: Option<String>,
}

impl View for DepartmentsV2 {
    const NAME: &'static str = DepartmentRowV2::NAME;
    const VERSION: u32 = DepartmentRowV2::VERSION;
    type Key = DepartmentId;
    type Row = DepartmentRowV2;

    fn key(event: &RecordedEvent) -> Option<DepartmentId> {
        Some(event.header.department)
    }

    fn row_key(row: &DepartmentRowV2) -> DepartmentId {
        row.department
    }

    fn fold(row: &mut Option<DepartmentRowV2>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        let row = row.get_or_insert_with(|| DepartmentRowV2 {
            department: header.department,
            events: 0,
            events_by_type: BTreeMap::new(),
            first_position: header.position,
            last_position: header.position,
            updated_at: storable(header.recorded_at),
            last_actor: None,
        });
        row.events += 1;
        let count = row.events_by_type.entry(header.event_type.to_string());
        *count.or_default() += 1;
        row.last_position = header.position;
        row.updated_at = storable(header.recorded_at);
        row.last_actor = Some(format!("{} at {}", header.actor, header.position));
        Ok(())
    }
}

/// Other columns: one is gone, and one in the middle may not be null.
#[derive(Debug)]
pub struct DepartmentsV3;

table! {
    DepartmentRowV3 = "departments" version 3 key department: DepartmentId, index events (events);
    department: DepartmentId,
    opened: i64,
    events: i64,
    last_position: Position,
}

impl View for DepartmentsV3 {
    const NAME: &'static str = DepartmentRowV3::NAME;
    const VERSION: u32 = DepartmentRowV3::VERSION;
    type Key = DepartmentId;
    type Row = DepartmentRowV3;

    fn key(event: &RecordedEvent) -> Option<DepartmentId> {
        Some(event.header.department)
    }

    fn row_key(row: &DepartmentRowV3) -> DepartmentId {
        row.department
    }

    fn fold(row: &mut Option<DepartmentRowV3>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        let row = row.get_or_insert_with(|| DepartmentRowV3 {
            department: header.department,
            opened: 0,
            events: 0,
            last_position: header.position,
        });
        row.events += 1;
        row.opened += i64::from(header.sequence == 1);
        row.last_position = header.position;
        Ok(())
    }
}

/// The views of a program that has this version of one of them.
pub fn set(version: u32) -> ViewSet {
    match version {
        1 => ViewSet::shipped(),
        2 => ViewSet::shipped().with::<DepartmentsV2>(),
        3 => ViewSet::shipped().with::<DepartmentsV3>(),
        other => panic!("no program has version {other}"),
    }
}
