//! Records as bytes: decoding, and encoding without losing what a newer writer put in.
//!
//! Invariant: fields that our messages do not have (at the top level of a record) are carried along
//! and written back behind the known ones, so that an update by us never deletes them.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use vtproto::{cutover, topodata, vschema, workflow};

use crate::error::{Result, TopoError};

/// The encoded fields of a record which we do not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownFields(Vec<u8>);

/// A message kept in the topology server.
pub(crate) trait TopoRecord: Message + Default + Clone + 'static {
    /// Every field number of the message.
    const FIELDS: &'static [u32];
}

macro_rules! records {
    ($($message:ty => $name:literal [$($field:literal),*];)*) => {
        $(impl TopoRecord for $message {
            const FIELDS: &'static [u32] = &[$($field),*];
        })*

        #[cfg(test)]
        const DECLARED: &[(&str, &[u32])] = &[$(($name, <$message>::FIELDS)),*];
    };
}

records! {
    cutover::GateAck => "cutover.GateAck" [1, 2, 3, 4];
    cutover::Journal => "cutover.Journal" [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    topodata::CellInfo => "topodata.CellInfo" [1, 2];
    topodata::CellsAlias => "topodata.CellsAlias" [2];
    topodata::Keyspace => "topodata.Keyspace" [1, 2, 4, 5, 6, 7];
    topodata::Shard => "topodata.Shard" [1, 2, 3, 4, 6, 7, 8];
    topodata::ShardReplication => "topodata.ShardReplication" [1];
    topodata::SrvKeyspace => "topodata.SrvKeyspace" [1, 2, 3, 4];
    topodata::Tablet => "topodata.Tablet" [1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14];
    vschema::Keyspace => "vschema.Keyspace" [1, 2, 3, 4];
    vschema::RoutingRules => "vschema.RoutingRules" [1];
    vschema::SrvVSchema => "vschema.SrvVSchema" [1, 2];
    workflow::Workflow => "workflow.Workflow" [1, 2, 3, 4, 5, 6, 7, 8, 9];
}

/// `path` is the full key, for the error.
pub(crate) fn decode<M: TopoRecord>(path: &str, contents: &[u8]) -> Result<(M, UnknownFields)> {
    let corrupt = |error: prost::DecodeError| TopoError::Corrupt { path: path.to_owned(), reason: error.to_string() };
    let message = M::decode(contents).map_err(corrupt)?;
    let unknown = unknown_fields(contents, M::FIELDS).map_err(corrupt)?;
    Ok((message, unknown))
}

pub(crate) fn encode<M: TopoRecord>(message: &M, unknown: &UnknownFields) -> Bytes {
    let mut contents = message.encode_to_vec();
    contents.extend_from_slice(&unknown.0);
    contents.into()
}

fn unknown_fields(contents: &[u8], known: &[u32]) -> Result<UnknownFields, prost::DecodeError> {
    let mut unknown = Vec::new();
    let mut rest = contents;
    while !rest.is_empty() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if !known.contains(&number) {
            unknown.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok(UnknownFields(unknown))
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn every_field_of_every_record_is_declared() {
        let pool = DescriptorPool::decode(vtproto::DESCRIPTORS).expect("built from our own protos");
        for (name, declared) in DECLARED {
            let message = pool.get_message_by_name(name).unwrap_or_else(|| panic!("{name} is in the protos"));
            let mut fields: Vec<u32> = message.fields().map(|field| field.number()).collect();
            fields.sort_unstable();
            assert_eq!(&fields, declared, "{name}");
        }
    }

    #[test]
    fn fields_of_a_newer_writer_survive_our_write() {
        let shard = topodata::Shard { is_master_serving: true, ..Default::default() };
        let mut contents = shard.encode_to_vec();
        // Field 5 of old records (length-delimited) and a varint field 900 of the future.
        let extra = [0x2a, 0x02, b'h', b'i', 0xa0, 0x38, 0x2a];
        contents.extend_from_slice(&extra);
        let (mut read, unknown) = decode::<topodata::Shard>("p", &contents).expect("valid");
        read.is_master_serving = false;
        assert_eq!(encode(&read, &unknown), &extra[..]);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let error = decode::<topodata::Shard>("/root/Shard", b"\xff\xff").expect_err("not a record");
        assert!(error.to_string().starts_with("cannot decode /root/Shard: "), "{error}");
    }
}
