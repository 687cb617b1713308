//! Names that a run-time compiler wrote into a perf map: `START SIZE NAME` lines in hexadecimal.
//!
//! The format is the kernel's tools/perf/Documentation/jit-interface.txt. Maps grow while the
//! program compiles; code that moved is listed again, so that a later line replaces earlier ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one map that are read at most.
const MAX_BYTES: u64 = 64 << 20;
/// What is kept of one map, in bytes: some large ones fit beside each other.
const MAX_MEMORY: usize = 32 << 20;
/// Longest name that is kept, in bytes.
const MAX_NAME: usize = 1024;
/// How often a map is looked at for having grown.
const REREAD_AFTER: Duration = Duration::from_secs(1);
/// How seldom, where all of it has to be read each time.
const REREAD_MAX: Duration = Duration::from_secs(60);
/// What an entry of the tree takes, roughly.
const ENTRY_BYTES: usize = 40;

/// One process's map.
#[derive(Debug)]
pub(super) struct PerfMap {
    file: Arc<File>,
    entries: BTreeMap<u64, Entry>,
    names: String,
    /// Bytes read so far.
    read: u64,
    /// The beginning of a line whose rest was not written yet.
    partial: Vec<u8>,
    checked: Option<Instant>,
    /// How long after that it is looked at again.
    pause: Duration,
    used: Instant,
    /// The map was larger than what is read of it.
    truncated: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    end: u64,
    name_at: u32,
    name_len: u32,
}

impl PerfMap {
    /// A map of which nothing was read yet.
    pub(super) fn new(file: Arc<File>) -> Self {
        Self {
            file,
            entries: BTreeMap::new(),
            names: String::new(),
            read: 0,
            partial: Vec::new(),
            checked: None,
            pause: REREAD_AFTER,
            used: Instant::now(),
            truncated: false,
        }
    }

    /// Name and start of the function an address is in. Reads what was added to the map since,
    /// at most once a second; one that has to be read as a whole, ever more seldom.
    pub(super) fn find(&mut self, address: u64) -> Option<(&str, u64)> {
        self.used = Instant::now();
        if self.checked.is_none_or(|checked| checked.elapsed() >= self.pause) {
            self.checked = Some(self.used);
            self.catch_up();
        }
        let (&start, entry) = self.entries.range(..=address).next_back()?;
        let from = entry.name_at as usize;
        (address < entry.end).then_some(())?;
        Some((self.names.get(from..from + entry.name_len as usize)?, start))
    }

    /// When it was last asked.
    pub(super) fn used(&self) -> Instant {
        self.used
    }

    /// Lets go of what was read, and reads it again after a pause: others need the memory.
    pub(super) fn let_go(&mut self) {
        self.start_over();
        self.checked = Some(Instant::now());
    }

    fn start_over(&mut self) {
        let pause = (self.pause * 2).min(REREAD_MAX);
        let fresh = Self::new(Arc::clone(&self.file));
        *self = Self { checked: self.checked, used: self.used, truncated: self.truncated, pause, ..fresh };
    }

    /// Whether part of the map had to be left out.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Bytes of memory in use, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        self.names.len() + self.entries.len() * ENTRY_BYTES + self.partial.len()
    }

    fn catch_up(&mut self) {
        let size =
            rustix::fs::fstat(self.file.as_fd()).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        if size < self.read {
            // Written anew from the start.
            self.start_over();
        } else if self.read > 0 {
            self.pause = (self.pause / 2).max(REREAD_AFTER);
        }
        self.truncated |= size > MAX_BYTES;
        let mut buffer = vec![0; 64 << 10];
        while self.read < size.min(MAX_BYTES) {
            let Ok(count @ 1..) = rustix::io::pread(self.file.as_fd(), buffer.as_mut_slice(), self.read)
            else {
                break;
            };
            self.read += count as u64;
            self.add_bytes(buffer.get(..count).unwrap_or_default());
        }
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.len() < 2 * MAX_NAME {
                self.partial.extend_from_slice(part.get(..part.len().min(2 * MAX_NAME)).unwrap_or_default());
            }
            if part.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.partial);
                self.add_line(&line);
                self.partial = line;
                self.partial.clear();
            }
        }
    }

    fn add_line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let Some((start, end, name)) = parse(&text) else { return };
        if self.memory_bytes() + name.len() + ENTRY_BYTES > MAX_MEMORY {
            self.truncated = true;
            return;
        }
        let (Ok(name_at), Ok(name_len)) = (u32::try_from(self.names.len()), u32::try_from(name.len())) else {
            return;
        };
        // What it overlaps is code that is not there any more.
        while let Some((&old, entry)) = self.entries.range(..end).next_back()
            && entry.end > start
        {
            self.entries.remove(&old);
        }
        self.names.push_str(name);
        self.entries.insert(start, Entry { end, name_at, name_len });
    }
}

fn parse(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.trim_end_matches(['\n', '\r']).splitn(3, ' ');
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok();
    let start = number(words.next()?)?;
    let end = start.checked_add(number(words.next()?)?)?;
    let name = words.next()?.trim();
    let mut cut = name.len().min(MAX_NAME);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    (start < end && !name.is_empty()).then_some((start, end, name.get(..cut)?))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use proptest::prelude::*;

    use super::*;

    fn map_of(text: &[u8]) -> (File, PerfMap) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let map = PerfMap::new(Arc::new(file.try_clone().unwrap()));
        (file, map)
    }

    #[test]
    fn addresses_find_their_function() {
        let (_file, mut map) =
            map_of(b"1000 10 LazyCompile:~a b file.js:1\n0x2000 0x20 g\nrubbish\n3000 0 empty\n");
        assert_eq!(map.find(0x100f), Some(("LazyCompile:~a b file.js:1", 0x1000)));
        assert_eq!(map.find(0x1010), None);
        assert_eq!(map.find(0x2000), Some(("g", 0x2000)));
        assert_eq!(map.find(0x3000), None);
        assert_eq!(map.find(0), None);
    }

    #[test]
    fn later_lines_replace_what_they_overlap() {
        let (_file, mut map) = map_of(b"1000 100 old\n1100 100 kept\n1080 20 new\n");
        assert_eq!(map.find(0x1090).unwrap().0, "new");
        assert_eq!(map.find(0x1000), None, "the old code is gone as a whole");
        assert_eq!(map.find(0x1180).unwrap().0, "kept");
    }

    #[test]
    fn what_is_appended_is_seen_even_in_the_middle_of_a_line() {
        let (mut file, mut map) = map_of(b"1000 10 first\n2000 10 sec");
        assert_eq!(map.find(0x1000).unwrap().0, "first");
        assert_eq!(map.find(0x2000), None);
        file.seek(std::io::SeekFrom::End(0)).unwrap();
        file.write_all(b"ond\n").unwrap();
        map.checked = None;
        assert_eq!(map.find(0x2000).unwrap().0, "second");
    }

    #[test]
    fn a_rewritten_map_is_read_from_the_start() {
        let (mut file, mut map) = map_of(b"1000 10 old_name\n");
        assert!(map.find(0x1000).is_some());
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(b"5000 9 new\n").unwrap();
        map.checked = None;
        assert_eq!(map.find(0x1000), None);
        assert_eq!(map.find(0x5000).unwrap().0, "new");
    }

    #[test]
    fn a_map_that_is_written_anew_all_the_time_is_read_ever_more_seldom() {
        let (mut file, mut map) = map_of(b"1000 10 old_name\n");
        assert!(map.find(0x1000).is_some());
        for doubled in 1..=3 {
            file.set_len(0).unwrap();
            map.checked = None;
            assert!(map.find(0x1000).is_none());
            assert_eq!(map.pause, REREAD_AFTER * 2_u32.pow(doubled));
            file.rewind().unwrap();
            file.write_all(b"1000 10 new_name\n").unwrap();
            map.catch_up();
        }
        // Once it only grows, it is looked at often again.
        for _ in 0..3 {
            map.checked = None;
            assert!(map.find(0x1000).is_some());
        }
        assert_eq!(map.pause, REREAD_AFTER);
    }

    #[test]
    fn one_map_takes_no_more_than_its_share() {
        let name = "n".repeat(MAX_NAME);
        let lines: String = (0..40_000).map(|at| format!("{:x} 10 {name}\n", at * 0x10)).collect();
        let (_file, mut map) = map_of(lines.as_bytes());
        assert!(map.find(0).is_some() && map.is_truncated());
        assert!(map.memory_bytes() <= MAX_MEMORY + 4 * MAX_NAME, "{}", map.memory_bytes());
        map.let_go();
        assert!(map.find(0).is_none() && map.memory_bytes() == 0, "not read again at once");
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let (_file, mut map) = map_of(&[b'a'; 1 << 20]);
        map.find(0);
        assert!(map.memory_bytes() < 8 * MAX_NAME, "{}", map.memory_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), address: u64) {
            let (_file, mut map) = map_of(&bytes);
            map.find(address);
        }

        #[test]
        fn entries_never_overlap(lines in proptest::collection::vec((0_u64..200, 0_u64..40), 0..40)) {
            let text: String = lines.iter().map(|(start, size)| format!("{start:x} {size:x} f\n")).collect();
            let (_file, mut map) = map_of(text.as_bytes());
            map.find(0);
            let mut end = 0;
            for (start, entry) in &map.entries {
                prop_assert!(*start >= end);
                end = entry.end;
            }
        }
    }
}
