//! Lines of `/proc/PID/maps`: bytes to values; whatever is not a mapping is left out.

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapsLine<'a> {
    /// First address.
    pub start: u64,
    /// First address after; above `start`.
    pub end: u64,
    /// `x` is among the permissions.
    pub executable: bool,
    /// Offset of `start` in the file.
    pub offset: u64,
    /// Device numbers of the file, major and minor.
    pub device: (u32, u32),
    /// Inode of the file; 0 for none.
    pub inode: u64,
    /// Path or `[name]`, possibly empty; a newline in it is written `\012`.
    pub path: &'a [u8],
}

/// All valid lines. Format: proc_pid_maps(5).
pub(super) fn parse(maps: &[u8]) -> impl Iterator<Item = MapsLine<'_>> {
    maps.split(|&byte| byte == b'\n').filter_map(line)
}

fn line(text: &[u8]) -> Option<MapsLine<'_>> {
    let (range, rest) = word(text)?;
    let (permissions, rest) = word(rest)?;
    let (offset, rest) = word(rest)?;
    let (device, rest) = word(rest)?;
    let (inode, rest) = word(rest).unwrap_or((rest, b""));
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let (start, end) = (hex(range.get(..dash)?)?, hex(range.get(dash + 1..)?)?);
    let colon = device.iter().position(|&byte| byte == b':')?;
    let device = (hex(device.get(..colon)?)?, hex(device.get(colon + 1..)?)?);
    let path =
        rest.iter().position(|&byte| byte != b' ').and_then(|from| rest.get(from..)).unwrap_or_default();
    (start < end).then_some(MapsLine {
        start,
        end,
        executable: permissions.get(2) == Some(&b'x'),
        offset: hex(offset)?,
        device: (u32::try_from(device.0).ok()?, u32::try_from(device.1).ok()?),
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        path,
    })
}

/// The path as the file system has it: the kernel writes a newline as `\012`.
pub(super) fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ')?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_with_and_without_a_path_are_read() {
        let maps = b"5588269be000-5588269d4000 r-xp 00004000 fe:01 1234                       /usr/bin/a b (deleted)\n\
            7ffb9e14c000-7ffb9e14e000 r--p 00000000 00:00 0 \n\
            7ffb9e14e000-7ffb9e150000 r-xp 00000000 00:00 0                          [vdso]\n\
            rubbish\n2000-1000 r-xp 0 0:0 0 \n";
        let lines: Vec<_> = parse(maps).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[0],
            MapsLine {
                start: 0x5588_269b_e000,
                end: 0x5588_269d_4000,
                executable: true,
                offset: 0x4000,
                device: (0xfe, 1),
                inode: 1234,
                path: b"/usr/bin/a b (deleted)",
            }
        );
        assert_eq!((lines[1].executable, lines[1].path), (false, &b""[..]));
        assert_eq!(lines[2].path, b"[vdso]");
    }

    #[test]
    fn an_escaped_newline_is_one_character() {
        assert_eq!(unescape(b"/a\\012b\\01"), b"/a\nb\\01");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse(&bytes).all(|line| line.start < line.end));
        }

        #[test]
        fn nearly_valid_lines_do_not_either(line in "[0-9a-f]{0,20}-[0-9a-f]{0,20} [rwxp-]{0,5} [0-9a-f:]{0,20} [0-9a-f:]{0,12} [0-9]{0,22} .{0,9}") {
            prop_assert!(parse(line.as_bytes()).all(|line| line.start < line.end));
        }
    }
}
