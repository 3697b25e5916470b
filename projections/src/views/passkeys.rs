use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sovereign_schemas::events::{ApproverEvent, ApproverEventRef, PasskeyEnrolled};
use sovereign_schemas::{AggregateType, EventHeader, Position, RecordedEvent, Text, Timestamp};

use crate::table::{Stored, storable};
use crate::{FoldError, View, table};

/// One row a passkey that was ever enrolled.
#[derive(Debug)]
pub struct Passkeys;

table! {
    /// A passkey.
    PasskeyRow = "passkeys" version 1 key passkey_id: String, index approver (approver);
    /// Approver and credential id, with a slash between.
    passkey_id: String,
    /// Id of the credential, base64url without padding, as browsers write it.
    credential_id: String,
    /// For whom it signs.
    approver: String,
    /// For which relying party.
    rp_id: String,
    /// On which page it signs.
    origin: String,
    /// What its owner calls it.
    label: Option<String>,
    /// Whether it may be copied to other devices.
    backup_eligible: bool,
    /// When it was enrolled.
    enrolled_at: Timestamp,
    /// When it was revoked.
    revoked_at: Option<Timestamp>,
    /// Who revoked it.
    revoked_by: Option<String>,
    /// Why, in words.
    reason: Option<Text>,
    /// Position of its enrolment.
    first_position: Position,
    /// Position of its newest event.
    last_position: Position,
}

fn key_of(approver: &str, credential_id: &[u8]) -> String {
    format!("{approver}/{}", URL_SAFE_NO_PAD.encode(credential_id))
}

impl PasskeyRow {
    fn enrolled(event: PasskeyEnrolled, header: &EventHeader) -> Self {
        Self {
            passkey_id: key_of(&header.aggregate_id, &event.credential_id),
            credential_id: URL_SAFE_NO_PAD.encode(&event.credential_id),
            approver: header.aggregate_id.clone(),
            rp_id: event.rp_id,
            origin: event.origin,
            label: event.label,
            backup_eligible: event.backup_eligible,
            enrolled_at: storable(header.recorded_at),
            revoked_at: None,
            revoked_by: None,
            reason: None,
            first_position: header.position,
            last_position: header.position,
        }
    }
}

impl View for Passkeys {
    const NAME: &'static str = PasskeyRow::NAME;
    const VERSION: u32 = PasskeyRow::VERSION;
    type Key = String;
    type Row = PasskeyRow;

    fn key(event: &RecordedEvent) -> Option<String> {
        let header = &event.header;
        if header.aggregate_type != AggregateType::Approver.as_str() {
            return None;
        }
        let (event_type, version) = (header.event_type.as_bytes(), header.event_version);
        let id = match ApproverEventRef::decode(event_type, version, &event.payload) {
            Ok(ApproverEventRef::PasskeyEnrolled(e)) => e.credential_id,
            Ok(ApproverEventRef::PasskeyRevoked(e)) => e.credential_id,
            // the fold says what is wrong with it
            Err(_) => &[],
        };
        Some(key_of(&header.aggregate_id, id))
    }

    fn row_key(row: &PasskeyRow) -> String {
        row.passkey_id.clone()
    }

    fn fold(row: &mut Option<PasskeyRow>, event: &RecordedEvent) -> Result<(), FoldError> {
        let header = &event.header;
        match (row.as_mut(), event.decode::<ApproverEvent>()?) {
            (None, ApproverEvent::PasskeyEnrolled(e)) => {
                *row = Some(PasskeyRow::enrolled(e, header));
            }
            (Some(row), ApproverEvent::PasskeyEnrolled(_)) => {
                let key = row.passkey_id.clone();
                return Err(FoldError::RowExists { key });
            }
            (None, ApproverEvent::PasskeyRevoked(e)) => {
                let key = key_of(&header.aggregate_id, &e.credential_id);
                return Err(FoldError::RowMissing { key });
            }
            (Some(row), ApproverEvent::PasskeyRevoked(e)) => {
                row.revoked_at = Some(storable(header.recorded_at));
                row.revoked_by = Some(e.revoked_by);
                row.reason = Some(e.reason);
                row.last_position = header.position;
            }
        }
        Ok(())
    }
}
