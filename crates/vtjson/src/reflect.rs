//! From a generated message to one that can be walked, and back.

use std::sync::OnceLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor};

use crate::JsonError;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The descriptors are compiled into the program; every test of this crate reads them.
    POOL.get_or_init(|| DescriptorPool::decode(vtproto::DESCRIPTORS).expect("descriptors of our own build"))
}

pub(crate) fn descriptor<M: Name>() -> MessageDescriptor {
    // Generated code and descriptors come from the same files.
    pool().get_message_by_name(&M::full_name()).expect("every generated message has a descriptor")
}

pub(crate) fn dynamic<M: Message + Name>(message: &M) -> DynamicMessage {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    // What a message encodes to is valid for its own descriptor.
    dynamic.transcode_from(message).expect("a message decodes as itself");
    dynamic
}

pub(crate) fn transcode<M: Message + Default>(message: DynamicMessage) -> Result<M, JsonError> {
    message.transcode_to().map_err(|error| JsonError::new(error.to_string()))
}

/// Fields in the order of the declaration, which is the order of Go's structs.
pub(crate) fn fields(descriptor: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let numbers = descriptor.descriptor_proto().field.iter().map(|field| field.number());
    numbers.filter_map(|number| descriptor.get_field(number as u32)).collect()
}

/// The type as Go prints it: `vschema.Keyspace`, and `topodata.Shard_ServedType` for a nested one.
pub(crate) fn go_type(descriptor: &MessageDescriptor) -> String {
    let full = descriptor.full_name();
    match full.split_once('.') {
        Some((package, rest)) => format!("{package}.{}", rest.replace('.', "_")),
        None => full.to_owned(),
    }
}
