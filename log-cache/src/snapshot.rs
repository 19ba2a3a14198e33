//! What a store holds, written to a directory when its process stops and read back when it starts.
//!
//! What enters: a store and a directory. What leaves: one file there, or a store filled from it. The file is written beside its name and
//! renamed, so there is a whole one or none; it is taken away once it has been read, so that what is read is never older than the last
//! stop. A record that does not add up ends the reading: what came before it is kept, and the file is set aside.
//!
//! ```text
//! "hydrant cache 1\n"
//! records: length (u32, little endian), CRC-32C of the payload (u32, little endian), payload
//! payload: (numbers are varints) source id (length, bytes), bytes ever, newest timestamp as u64, evicted x 6, segments, and of each
//!          first sequence, size without compression, length, packed bytes
//! an empty payload is the end
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use proto::raw::wire::{Fields, put_varint};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::packed::{Broken, Packed};
use crate::sealed::Sealed;
use crate::segment::Kinds;
use crate::store::Store;

const FILE: &str = "cache";
const NEW: &str = "cache.new";
const ASIDE: &str = "cache.damaged";

const MAGIC: &[u8] = b"hydrant cache 1\n";

/// No record is larger; a source with more is written as several.
const MAX_RECORD: usize = 64 * 1024 * 1024;

/// A segment's bytes in a record are written together up to here.
const RECORD: usize = 4 * 1024 * 1024;

/// No store gets as far as this sequence: numbers go on behind those that are read.
const LAST: u64 = u64::MAX / 2;

/// What was written or read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Envelopes.
    pub envelopes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Where the file was put that did not add up.
    pub set_aside: Option<PathBuf>,
}

/// One source, or a part of it.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) id: Vec<u8>,
    pub(crate) bytes: u64,
    pub(crate) newest: i64,
    pub(crate) evicted: Kinds<u64>,
    /// In order of arrival.
    pub(crate) segments: Vec<Sealed>,
}

/// Fills a store that has just been made, if its configuration names a directory. What cannot be read is told, and the store stays empty:
/// an old history is worth less than a start.
pub fn restore(store: &Store, config: &Config) {
    let Some(directory) = &config.snapshot else { return };
    match load(store, directory) {
        Ok(Report { envelopes: 0, set_aside: None, .. }) => {}
        Ok(Report { envelopes, bytes, set_aside: None }) => {
            info!(directory = %directory.display(), envelopes, bytes, "Cache is back as it was at the last stop");
        }
        Ok(Report { envelopes, set_aside: Some(file), .. }) => {
            warn!(file = %file.display(), envelopes, "Snapshot is damaged and was set aside; what came before the damage is back");
        }
        Err(error) => {
            warn!(directory = %directory.display(), %error, "Snapshot could not be read; the cache starts empty")
        }
    }
}

/// Writes what a store holds, if its configuration names a directory. Once nothing is put any more.
pub async fn keep(store: &Store, config: &Config) {
    let Some(directory) = config.snapshot.clone() else { return };
    let (store, place) = (store.clone(), directory.clone());
    match tokio::task::spawn_blocking(move || save(&store, &place)).await {
        Ok(Ok(Report { envelopes, bytes, .. })) => {
            info!(directory = %directory.display(), envelopes, bytes, "Cache was written for the next start");
        }
        Ok(Err(error)) => {
            error!(directory = %directory.display(), %error, "Cache could not be written; what it held goes with this process");
        }
        Err(_) => {
            error!(directory = %directory.display(), "Cache could not be written; what it held goes with this process")
        }
    }
}

/// Writes all that `store` holds to `directory`, which is made if need be.
///
/// # Errors
/// What the file system says. Then there is no new file.
pub fn save(store: &Store, directory: &Path) -> io::Result<Report> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let (new, named) = (directory.join(NEW), directory.join(FILE));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut writer = Writer { file: BufWriter::with_capacity(1 << 20, file), report: Report::default() };
    writer.put(MAGIC)?;
    for shard in 0..Store::shards() {
        for (id, hash) in store.ids(shard) {
            writer.source(store, &id, hash)?;
        }
    }
    writer.record(&[])?;
    let Writer { file, report } = writer;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&new, &named)?;
    File::open(directory)?.sync_all()?;
    Ok(report)
}

struct Writer {
    file: BufWriter<File>,
    report: Report,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.report.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn record(&mut self, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| io::Error::other("a record over 4 GiB"))?;
        self.put(&len.to_le_bytes())?;
        self.put(&crc32c::crc32c(payload).to_le_bytes())?;
        self.put(payload)
    }

    fn source(&mut self, store: &Store, id: &[u8], hash: u64) -> io::Result<()> {
        let Some(record) = store.record(id, hash) else { return Ok(()) };
        let mut segments = record.segments.iter().peekable();
        while segments.peek().is_some() {
            let (mut body, mut count) = (Vec::new(), 0);
            while let Some(segment) = segments.next_if(|_| body.len() < RECORD) {
                let now;
                let packed = match segment.packed() {
                    Some(_) => segment,
                    None => {
                        now = segment.pack().expect("it is not packed");
                        &now
                    }
                };
                let (bytes, plain) = packed.packed().map(Packed::bytes).expect("it has just been packed");
                put_varint(&mut body, segment.first_sequence());
                put_varint(&mut body, plain.into());
                put_varint(&mut body, bytes.len() as u64);
                body.extend_from_slice(bytes);
                count += 1;
                self.report.envelopes += segment.len() as u64;
            }
            let mut payload = Vec::with_capacity(body.len() + id.len() + 100);
            put_varint(&mut payload, id.len() as u64);
            payload.extend_from_slice(id);
            put_varint(&mut payload, record.bytes);
            put_varint(&mut payload, record.newest.cast_unsigned());
            record.evicted.iter().for_each(|count| put_varint(&mut payload, *count));
            put_varint(&mut payload, count);
            payload.extend_from_slice(&body);
            self.record(&payload)?;
        }
        Ok(())
    }
}

/// Fills `store`, which must be empty, with what [`save`] wrote to `directory`; nothing, if there is no file. Takes the file away.
///
/// # Errors
/// What the file system says.
pub fn load(store: &Store, directory: &Path) -> io::Result<Report> {
    let named = directory.join(FILE);
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&named) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Report::default()),
        other => other?,
    };
    let mut reader = Reader { file: BufReader::with_capacity(1 << 20, file), report: Report::default() };
    let outcome = reader.all(store);
    let mut report = reader.report;
    match outcome {
        Ok(()) => fs::remove_file(&named)?,
        Err(Damage::Broken) => {
            let aside = directory.join(ASIDE);
            fs::rename(&named, &aside)?;
            report.set_aside = Some(aside);
        }
        Err(Damage::Io(error)) => return Err(error),
    }
    Ok(report)
}

enum Damage {
    Broken,
    Io(io::Error),
}

impl From<Broken> for Damage {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

struct Reader {
    file: BufReader<File>,
    report: Report,
}

impl Reader {
    fn all(&mut self, store: &Store) -> Result<(), Damage> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err(Damage::Broken);
        }
        loop {
            let payload = self.record()?;
            if payload.is_empty() {
                return Ok(());
            }
            let record = record(&payload)?;
            let envelopes: u64 = record.segments.iter().map(|segment| segment.len() as u64).sum();
            store.put_record(record)?;
            self.report.envelopes += envelopes;
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, Damage> {
        // Not allocated at once: a length that is wrong must not cost memory.
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(len as u64).read_to_end(&mut bytes).map_err(Damage::Io)?;
        self.report.bytes += read as u64;
        if read < len { Err(Damage::Broken) } else { Ok(bytes) }
    }

    fn record(&mut self) -> Result<Vec<u8>, Damage> {
        let number = |bytes: Vec<u8>| u32::from_le_bytes(bytes.try_into().expect("four were taken"));
        let len = number(self.take(4)?) as usize;
        let crc = number(self.take(4)?);
        if len > MAX_RECORD {
            return Err(Damage::Broken);
        }
        let payload = self.take(len)?;
        if crc32c::crc32c(&payload) == crc { Ok(payload) } else { Err(Damage::Broken) }
    }
}

/// Reads a payload, and looks through all that is in it.
fn record(payload: &[u8]) -> Result<Record, Broken> {
    let mut fields = Fields::new(payload);
    let mut record = Record { id: fields.bytes()?.to_vec(), ..Record::default() };
    record.bytes = fields.varint()?;
    record.newest = fields.varint()?.cast_signed();
    for count in &mut record.evicted {
        *count = fields.varint()?;
    }
    for _ in 0..fields.varint()? {
        let first_sequence = fields.varint()?;
        let plain = u32::try_from(fields.varint()?).map_err(|_| Broken)?;
        let packed = Packed::from_bytes(fields.bytes()?.into(), plain);
        let segment = Sealed::restore(packed, first_sequence)?;
        let follows = record.segments.last().is_none_or(|last| last.last_sequence() < first_sequence);
        if !follows || first_sequence == 0 || segment.last_sequence() > LAST {
            return Err(Broken);
        }
        record.segments.push(segment);
    }
    Ok(record)
}

#[cfg(test)]
mod tests;
