//! Which device is mounted where, and what it has done: `/proc/self/mountinfo` (proc_pid_mountinfo(5)), `/proc/diskstats`. Pure.

use std::borrow::Cow;

/// Bytes of what the kernel calls a sector, whatever the device's are.
const SECTOR: u64 = 512;

/// What a device has done since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    /// Milliseconds that reads took, summed over all of them.
    pub(crate) read_ms: u64,
    /// The same for writes.
    pub(crate) write_ms: u64,
    /// Milliseconds in which anything was under way.
    pub(crate) busy_ms: u64,
}

/// The `major:minor` of what is mounted at `path`: of the last mount, which hides those before it.
pub(crate) fn device<'a>(mountinfo: &'a str, path: &str) -> Option<&'a str> {
    let mut found = None;
    for line in mountinfo.lines() {
        let mut words = line.split(' ').skip(2);
        if let (Some(device), Some(_root), Some(point)) = (words.next(), words.next(), words.next())
            && unescaped(point) == path
        {
            found = Some(device);
        }
    }
    found
}

/// Text in which the kernel has written blanks and backslashes as `\040`.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let byte = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                rest = &rest[4..];
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            _ => {
                rest = tail;
                *first
            }
        };
        out.push(byte);
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// What the device `major:minor` has done; nothing for one without a line, as those of network and memory file systems.
pub(crate) fn activity(diskstats: &str, device: &str) -> Option<Activity> {
    let (major, minor) = device.split_once(':')?;
    diskstats.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != major || words.next()? != minor {
            return None;
        }
        let _name = words.next()?;
        let mut columns = [0_u64; 10];
        for column in &mut columns {
            *column = words.next()?.parse().ok()?;
        }
        let [_, _, read, read_ms, _, _, written, write_ms, _, busy_ms] = columns;
        let (read_bytes, written_bytes) = (read.saturating_mul(SECTOR), written.saturating_mul(SECTOR));
        Some(Activity { read_bytes, written_bytes, read_ms, write_ms, busy_ms })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 8:17 / /var/vcap/data rw,relatime shared:7 master:1 - ext4 /dev/sdb1 rw
41 27 8:18 / /with\\040blank\\134 rw - ext4 /dev/sdb2 rw
42 27 8:33 /inner /var/vcap/data rw - xfs /dev/sdc1 rw
broken
";

    const DISKSTATS: &str = "\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 121 2 3 44 5 6 7 88 9 100 11 0 0 0 0 0 0
   8      33 sdc1 1 2 3
   8      17 sdb1 x
";

    #[test]
    fn the_last_mount_at_a_path_is_what_one_sees() {
        assert_eq!(device(MOUNTINFO, "/"), Some("254:0"));
        assert_eq!(device(MOUNTINFO, "/var/vcap/data"), Some("8:33"));
        assert_eq!(device(MOUNTINFO, "/with blank\\"), Some("8:18"));
        assert_eq!(device(MOUNTINFO, "/var"), None);
    }

    #[test]
    fn activity_is_that_of_the_device() {
        let of = |device| activity(DISKSTATS, device);
        let vda = Activity { read_bytes: 1536, written_bytes: 3584, read_ms: 44, write_ms: 88, busy_ms: 100 };
        assert_eq!(of("254:0"), Some(vda));
        assert_eq!((of("8:33"), of("8:17")), (None, None), "too short, and no number");
        assert_eq!((of("0:21"), of("none")), (None, None));
    }
}
