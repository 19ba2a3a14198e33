//! What lies in a spool's directory, before anything is decided about it.
//!
//! A directory enters; its segment files with their headers leave, by number. It reads a header per file and changes nothing.

use std::io;
use std::path::Path;

use crate::format::{self, MAX_NUMBER, NoSegment, SEGMENT_HEADER, SegmentHeader};
use crate::fs::{Access, File, FileSystem};
use crate::walk::{Lossy, read_lossy};

/// A directory's segment files.
#[derive(Default)]
pub(crate) struct Survey {
    /// By number.
    pub(crate) files: Vec<SegmentFile>,
    /// Files that are not the spool's, or are of another version of it.
    pub(crate) foreign: u64,
    /// The highest number of a segment file; new ones get higher ones. 0: there is none.
    pub(crate) highest: u64,
}

/// A file named like a segment.
pub(crate) struct SegmentFile {
    pub(crate) number: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// `None` when it is damaged.
    pub(crate) header: Option<SegmentHeader>,
    /// The disk refused to read the header: it may be whole.
    pub(crate) refused: bool,
    /// Where the sequences of later segments start, as far as known.
    pub(crate) limit: u64,
    /// Open for reading.
    pub(crate) file: Box<dyn File>,
}

/// A file without a segment in it and with a number from here on has a stray name, which must not use up the numbers.
const STRAY: u64 = MAX_NUMBER / 2;

/// Looks through `dir`. Names in `own` are no strangers.
pub(crate) fn survey(fs: &dyn FileSystem, dir: &Path, own: &[&str]) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for entry in fs.list(dir)? {
        let name = entry.name.to_str().unwrap_or_default();
        let Some(number) = format::segment_number(name) else {
            survey.foreign += u64::from(!own.contains(&name));
            continue;
        };
        if number < STRAY {
            survey.highest = survey.highest.max(number);
        }
        if !entry.regular {
            survey.foreign += 1;
            continue;
        }
        let file = match fs.open(&dir.join(name), Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut bytes = [0; SEGMENT_HEADER];
        let Lossy { len, unreadable } = read_lossy(&*file, &mut bytes, 0);
        let header = match SegmentHeader::parse(&bytes[..len], number) {
            Ok(header) => Some(header),
            Err(NoSegment::Damaged) => None,
            Err(NoSegment::Foreign) => {
                survey.foreign += 1;
                continue;
            }
        };
        if header.is_none() && number >= STRAY {
            survey.foreign += 1;
            continue;
        }
        survey.highest = survey.highest.max(number);
        survey.files.push(SegmentFile {
            number,
            size: entry.len,
            header,
            refused: unreadable > 0,
            limit: u64::MAX,
            file,
        });
    }
    survey.files.sort_unstable_by_key(|file| file.number);
    let mut limit = u64::MAX;
    for file in survey.files.iter_mut().rev() {
        file.limit = limit;
        limit = limit.min(file.header.map_or(limit, |header| header.first));
    }
    Ok(survey)
}
