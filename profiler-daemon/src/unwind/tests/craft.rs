//! ELF files made by hand, to have in them what no compiler writes.

/// Where the code of a crafted file is.
pub(super) const CODE: u64 = 0x40_0000;

/// Bytes of code of a crafted file.
pub(super) const CODE_SIZE: usize = 0x3_0000;

const RSP: u8 = 7;
const RA: u8 = 16;

/// Frame descriptions, one after the other.
pub(super) struct Frames {
    pub(super) bytes: Vec<u8>,
    debug: bool,
}

impl Frames {
    /// `.eh_frame` with one common entry: CFA = rsp + 8, return address at CFA - 8.
    pub(super) fn new() -> Self {
        let mut frames = Self { bytes: Vec::new(), debug: false };
        frames.common(&[0x0c, RSP, 8, 0x80 | RA, 1]);
        frames
    }

    /// The same as `.debug_frame`.
    pub(super) fn debug() -> Self {
        let mut frames = Self { bytes: Vec::new(), debug: true };
        frames.common(&[0x0c, RSP, 8, 0x80 | RA, 1]);
        frames
    }

    fn common(&mut self, program: &[u8]) {
        let (id, augmentation): (_, &[u8]) = if self.debug { (u32::MAX, b"\0") } else { (0, b"zR\0") };
        let mut entry = id.to_le_bytes().to_vec();
        entry.push(1);
        entry.extend(augmentation);
        entry.extend([1, 0x78, RA]);
        if !self.debug {
            // One byte of augmentation: addresses are absolute.
            entry.extend([1, 0]);
        }
        entry.extend(program);
        self.entry(&entry);
    }

    /// A function at an offset into the code.
    pub(super) fn function(mut self, offset: u64, len: u64, program: &[u8]) -> Self {
        self.function_at(CODE + offset, len, program);
        self
    }

    pub(super) fn function_at(&mut self, start: u64, len: u64, program: &[u8]) {
        // `.eh_frame` counts back from the field itself, `.debug_frame` from the section's start.
        let common = if self.debug { 0 } else { self.bytes.len() as u32 + 4 };
        let mut entry = common.to_le_bytes().to_vec();
        entry.extend(start.to_le_bytes());
        entry.extend(len.to_le_bytes());
        if !self.debug {
            entry.push(0);
        }
        entry.extend(program);
        self.entry(&entry);
    }

    fn entry(&mut self, entry: &[u8]) {
        self.bytes.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
        self.bytes.extend(entry);
    }
}

/// A file: some code, an entry point, and sections by name, address and content.
pub(super) fn file(code: &[u8], entry: u64, sections: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    let code_at = file.len() as u64;
    let mut whole = code.to_vec();
    whole.resize(CODE_SIZE, 0xcc);
    file.extend(whole);

    let mut names = b"\0".to_vec();
    let mut headers = vec![0; 64];
    let all = sections.iter().copied().chain([(".shstrtab", 0, &[][..])]);
    for (name, address, content) in all {
        let name_at = names.len() as u32;
        names.extend(name.as_bytes());
        names.push(0);
        let content = if name == ".shstrtab" { &names } else { content };
        // A section that is part of the code is not stored twice.
        let offset = match address.checked_sub(CODE) {
            Some(inside) if inside < CODE_SIZE as u64 => code_at + inside,
            _ => {
                file.extend(content);
                (file.len() - content.len()) as u64
            }
        };
        headers.extend(name_at.to_le_bytes());
        headers.extend(1_u32.to_le_bytes());
        for number in [2, address, offset, content.len() as u64, 0, 8, 0] {
            headers.extend(number.to_le_bytes());
        }
    }
    let headers_at = file.len() as u64;
    let count = u16::try_from(headers.len() / 64).unwrap();
    file.extend(headers);

    let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    head.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    for number in [entry, 64, headers_at] {
        head.extend(number.to_le_bytes());
    }
    for half in [0, 0, 64, 56, 1, 64, count, count - 1_u16] {
        head.extend(half.to_le_bytes());
    }
    head.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for number in [code_at, CODE, CODE, CODE_SIZE as u64, CODE_SIZE as u64, 4096] {
        head.extend(number.to_le_bytes());
    }
    file[..head.len()].copy_from_slice(&head);
    file
}

/// A file with nothing but frame descriptions.
pub(super) fn with(frames: &Frames) -> Vec<u8> {
    let name = if frames.debug { ".debug_frame" } else { ".eh_frame" };
    file(&[], 0, &[(name, 0, &frames.bytes)])
}
