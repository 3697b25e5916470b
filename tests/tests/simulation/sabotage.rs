/// One promise that a world breaks on purpose, so that the checks can be seen to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// I1: the head row does not serialise writers.
    TwoWritersTakeTheHead,
    /// I1: a tail leaves out an event now and then.
    TailSkipsAnEvent,
    /// I2: no unique index on command ids, and repeats are not looked up.
    CommandIdsAreNotUnique,
    /// I3: the disk changes a byte of a payload.
    DiskFlipsABit,
    /// I4: a take-over does not fence, so a relay that was replaced goes on.
    TakeOverDoesNotFence,
    /// I4: records are sent only when the transaction commits, so the order of two is lost.
    FlushReturnsEarly,
    /// Loss: the broker acknowledges records that it does not keep.
    BrokerAcknowledgesAndLoses,
    /// I5: rows and checkpoint are committed one after the other.
    CheckpointApartFromRows,
    /// I5: the checkpoint is not compared before it moves.
    CheckpointIsNotCompared,
    /// Durability: the flush is answered before anything is on disk.
    FlushLies,
}
