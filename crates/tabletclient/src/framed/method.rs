//! The methods of the query service by number.

/// One method. The numbers are on the wire: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Method {
    Execute = 1,
    ExecuteBatch,
    StreamExecute,
    Begin,
    Commit,
    Rollback,
    BeginExecute,
    BeginExecuteBatch,
    Prepare,
    CommitPrepared,
    RollbackPrepared,
    CreateTransaction,
    StartCommit,
    SetRollback,
    ConcludeTransaction,
    ReadTransaction,
    StreamHealth,
    MessageStream,
    MessageAck,
    SplitQuery,
    VStream,
    /// From version 2 on: Items with pieces of the result may come before the response.
    ExecuteRows,
    BeginExecuteRows,
}

impl Method {
    const ALL: [Self; 23] = [
        Self::Execute,
        Self::ExecuteBatch,
        Self::StreamExecute,
        Self::Begin,
        Self::Commit,
        Self::Rollback,
        Self::BeginExecute,
        Self::BeginExecuteBatch,
        Self::Prepare,
        Self::CommitPrepared,
        Self::RollbackPrepared,
        Self::CreateTransaction,
        Self::StartCommit,
        Self::SetRollback,
        Self::ConcludeTransaction,
        Self::ReadTransaction,
        Self::StreamHealth,
        Self::MessageStream,
        Self::MessageAck,
        Self::SplitQuery,
        Self::VStream,
        Self::ExecuteRows,
        Self::BeginExecuteRows,
    ];

    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    pub fn is_stream(self) -> bool {
        matches!(self, Self::StreamExecute | Self::StreamHealth | Self::MessageStream | Self::VStream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_methods() {
        for method in Method::ALL {
            assert_eq!(Method::from_byte(method as u8), Some(method));
        }
        assert_eq!(Method::from_byte(0), None);
        assert_eq!(Method::from_byte(Method::ALL.len() as u8 + 1), None);
    }
}
