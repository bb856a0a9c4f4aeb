//! What a cutover moves, and where to: decided from records, before anything is done.

use topo::{KeyspaceInfo, ShardInfo};
use vtproto::binlogdata::BinlogSource;
use vtproto::cutover as pb;
use vtproto::topodata::{Tablet, TabletType};

use crate::error::{Result, bail};
use crate::resharding::sides::Sides;

/// Keyspace and shard.
pub(super) type ShardId = (String, String);

/// A shard and the tablet that is its master.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub shard: ShardInfo,
    pub master: Tablet,
}

impl Place {
    pub fn keyspace(&self) -> &str {
        &self.shard.keyspace
    }

    pub fn name(&self) -> &str {
        &self.shard.shard_name
    }

    pub fn alias(&self) -> String {
        topo::topoproto::tablet_alias_string(self.master.alias.as_ref())
    }

    pub fn is(&self, keyspace: &str, shard: &str) -> bool {
        self.keyspace() == keyspace && self.name() == shard
    }
}

/// A stream that has to be caught up before the flip, and ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamRef {
    /// Index of the destination where it runs.
    pub destination: usize,
    /// Index of the source that it reads from.
    pub source: usize,
    pub uid: u32,
}

/// A stream that will bring later changes of a destination back to a source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StreamBack {
    /// Index of the source, where it runs.
    pub source: usize,
    /// Index of the destination, which it reads.
    pub destination: usize,
    pub reads: BinlogSource,
}

/// Everything that the phases need to know.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub kind: pb::Kind,
    /// A vertical split goes back.
    pub back: bool,
    /// The keyspace whose SrvKeyspace is flipped; the journal lies there too.
    pub keyspace: String,
    /// The journal's name.
    pub name: String,
    pub sources: Vec<Place>,
    pub destinations: Vec<Place>,
    pub streams: Vec<StreamRef>,
    /// The tables that move; none: all.
    pub tables: Vec<String>,
    /// A stream back was asked for, or is needed.
    pub return_stream: bool,
}

impl Plan {
    /// What operators call it.
    pub fn title(&self) -> String {
        let names = |places: &[Place]| {
            places.iter().map(|place| format!("{}/{}", place.keyspace(), place.name())).collect::<Vec<_>>().join(", ")
        };
        format!("{} to {}", names(&self.sources), names(&self.destinations))
    }

    /// Whether whole shards stop: then their mysqlds refuse writes too while the positions are read.
    pub fn whole_shards(&self) -> bool {
        self.tables.is_empty()
    }

    /// The streams back that are prepared. Those of a horizontal split always are, as in v5.0.1.
    pub fn streams_back(&self) -> Vec<StreamBack> {
        let horizontal = self.kind == pb::Kind::MigrateServedTypes;
        if !horizontal && !self.return_stream {
            return Vec::new();
        }
        let mut back = Vec::new();
        for (source, to) in self.sources.iter().enumerate() {
            for (destination, from) in self.destinations.iter().enumerate() {
                if !from.shard.range().intersects(&to.shard.range()) {
                    continue;
                }
                let key_range = horizontal.then(|| to.shard.record.key_range.clone().unwrap_or_default());
                let reads = BinlogSource {
                    keyspace: from.keyspace().to_owned(),
                    shard: from.name().to_owned(),
                    tables: self.tables.clone(),
                    key_range,
                    ..Default::default()
                };
                back.push(StreamBack { source, destination, reads });
            }
        }
        back
    }

    /// The journal of a cutover that is about to begin.
    pub fn journal(&self, id: String) -> pb::Journal {
        pb::Journal {
            kind: self.kind.into(),
            id,
            keyspace: self.keyspace.clone(),
            served_type: TabletType::Master.into(),
            reverse: self.back,
            sources: self
                .sources
                .iter()
                .map(|place| pb::Source {
                    keyspace: place.keyspace().to_owned(),
                    shard: place.name().to_owned(),
                    master: place.master.alias.clone(),
                    ..Default::default()
                })
                .collect(),
            streams: self
                .streams
                .iter()
                .map(|stream| pb::Stream {
                    keyspace: self.destinations[stream.destination].keyspace().to_owned(),
                    shard: self.destinations[stream.destination].name().to_owned(),
                    uid: stream.uid,
                    source_keyspace: self.sources[stream.source].keyspace().to_owned(),
                    source_shard: self.sources[stream.source].name().to_owned(),
                    reverse: false,
                    position: String::new(),
                })
                .collect(),
            tables: self.tables.clone(),
            ..Default::default()
        }
    }

    /// The places of a journal: its sources, then where its streams run. A cutover without streams of its
    /// own (made by a tool that keeps no journal) has no destinations in it.
    pub fn places_of(journal: &pb::Journal) -> (Vec<ShardId>, Vec<ShardId>) {
        let sources = journal.sources.iter().map(|source| (source.keyspace.clone(), source.shard.clone())).collect();
        let mut destinations: Vec<ShardId> = Vec::new();
        for stream in journal.streams.iter().filter(|stream| !stream.reverse) {
            let place = (stream.keyspace.clone(), stream.shard.clone());
            if !destinations.contains(&place) {
                destinations.push(place);
            }
        }
        (sources, destinations)
    }

    /// The plan of a cutover that was begun.
    pub fn from_journal(
        journal: &pb::Journal,
        name: &str,
        sources: Vec<Place>,
        destinations: Vec<Place>,
        return_stream: bool,
    ) -> Result<Self> {
        let index =
            |places: &[Place], keyspace: &str, shard: &str| places.iter().position(|one| one.is(keyspace, shard));
        let mut streams = Vec::new();
        for stream in journal.streams.iter().filter(|stream| !stream.reverse) {
            let (Some(destination), Some(source)) = (
                index(&destinations, &stream.keyspace, &stream.shard),
                index(&sources, &stream.source_keyspace, &stream.source_shard),
            ) else {
                bail!("the journal of cutover {name} names a stream between shards that it does not name")
            };
            streams.push(StreamRef { destination, source, uid: stream.uid });
        }
        Ok(Self {
            kind: journal.kind(),
            back: journal.reverse,
            keyspace: journal.keyspace.clone(),
            name: name.to_owned(),
            sources,
            destinations,
            streams,
            tables: journal.tables.clone(),
            return_stream,
        })
    }
}

/// MigrateServedFrom … master.
pub(super) fn served_from(
    keyspace: &KeyspaceInfo,
    source: Place,
    destination: Place,
    return_stream: bool,
) -> Result<Plan> {
    let (ks, shard) = (destination.keyspace().to_owned(), destination.name().to_owned());
    let [fed_by] = destination.shard.record.source_shards.as_slice() else {
        bail!("destination shard {ks}/{shard} is not a vertical split target")
    };
    keyspace.check_served_from_migration(TabletType::Master, &[], &fed_by.keyspace, true)?;
    Ok(Plan {
        kind: pb::Kind::MigrateServedFrom,
        back: false,
        keyspace: ks,
        name: shard,
        tables: fed_by.tables.clone(),
        streams: vec![StreamRef { destination: 0, source: 0, uid: fed_by.uid }],
        sources: vec![source],
        destinations: vec![destination],
        return_stream,
    })
}

/// MigrateServedFrom -reverse … master: `from` is the split's destination, `to` its source, which the
/// stream `uid` has kept up to date.
pub(super) fn served_back(from: Place, to: Place, uid: u32, tables: Vec<String>) -> Plan {
    Plan {
        kind: pb::Kind::MigrateServedFrom,
        back: true,
        keyspace: from.keyspace().to_owned(),
        name: from.name().to_owned(),
        sources: vec![from],
        destinations: vec![to],
        streams: vec![StreamRef { destination: 0, source: 0, uid }],
        tables,
        // Replicas of the split may serve already: they need the stream.
        return_stream: true,
    }
}

/// MigrateServedTypes … master.
pub(super) fn served_types(sources: Vec<Place>, destinations: Vec<Place>, return_stream: bool) -> Result<Plan> {
    let mut streams = Vec::new();
    for (destination, place) in destinations.iter().enumerate() {
        for fed_by in &place.shard.record.source_shards {
            let Some(source) = sources.iter().position(|one| one.is(&fed_by.keyspace, &fed_by.shard)) else {
                bail!(
                    "shard {}/{} is replicated from {}/{}, which is not a shard that it replaces",
                    place.keyspace(),
                    place.name(),
                    fed_by.keyspace,
                    fed_by.shard
                )
            };
            streams.push(StreamRef { destination, source, uid: fed_by.uid });
        }
    }
    // What a destination holds has to come from every source that holds some of it.
    for (d, destination) in destinations.iter().enumerate() {
        for (s, source) in sources.iter().enumerate() {
            let shares = source.shard.range().intersects(&destination.shard.range());
            if shares && !streams.iter().any(|stream| stream.destination == d && stream.source == s) {
                bail!(
                    "shard {}/{} is not replicated from {}/{}: did vtworker SplitClone finish?",
                    destination.keyspace(),
                    destination.name(),
                    source.keyspace(),
                    source.name()
                );
            }
        }
    }
    let name = name_of(sources.iter().map(Place::name), destinations.iter().map(Place::name));
    Ok(Plan {
        kind: pb::Kind::MigrateServedTypes,
        back: false,
        keyspace: sources[0].keyspace().to_owned(),
        name,
        sources,
        destinations,
        streams,
        tables: Vec::new(),
        return_stream,
    })
}

/// The same when it is past its point of no return and the records no longer say which streams there were.
pub(super) fn served_types_done(sources: Vec<Place>, destinations: Vec<Place>, return_stream: bool) -> Plan {
    let mut streams = Vec::new();
    for (destination, place) in destinations.iter().enumerate() {
        for fed_by in &place.shard.record.source_shards {
            if let Some(source) = sources.iter().position(|one| one.is(&fed_by.keyspace, &fed_by.shard)) {
                streams.push(StreamRef { destination, source, uid: fed_by.uid });
            }
        }
    }
    Plan {
        kind: pb::Kind::MigrateServedTypes,
        back: false,
        keyspace: sources[0].keyspace().to_owned(),
        name: name_of(sources.iter().map(Place::name), destinations.iter().map(Place::name)),
        sources,
        destinations,
        streams,
        tables: Vec::new(),
        return_stream,
    }
}

/// The journal's name of a horizontal split, the same in both directions.
pub(crate) fn group_name(sides: &Sides) -> String {
    let names = |shards: &'_ [ShardInfo]| shards.iter().map(|shard| shard.shard_name.clone()).collect::<Vec<_>>();
    let (sources, destinations) = (names(&sides.sources), names(&sides.destinations));
    name_of(sources.iter().map(String::as_str), destinations.iter().map(String::as_str))
}

fn name_of<'a>(sources: impl Iterator<Item = &'a str>, destinations: impl Iterator<Item = &'a str>) -> String {
    let mut sides = [sources.collect::<Vec<_>>().join(","), destinations.collect::<Vec<_>>().join(",")];
    sides.sort();
    sides.join(":")
}
