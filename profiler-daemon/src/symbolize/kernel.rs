//! Kernel symbols from `/proc/kallsyms`: text symbols only, with the module they belong to.
//!
//! Read here and not through blazesym: it does not tell the module, and it reads the file anew
//! whenever its times change, which in `/proc` is whenever the kernel drops the inode.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::time::{Duration, Instant};

/// Most symbols: a large kernel with all its modules has about 300 000.
const MAX_SYMBOLS: usize = 1_000_000;
/// No function is larger; an address farther from every symbol belongs to code that came later.
const MAX_FUNCTION: u64 = 256 << 10;
/// Modules and BPF programs come and go: read again after a miss, at most this often.
const REREAD_AFTER: Duration = Duration::from_secs(60);

/// The kernel's symbol table.
#[derive(Debug, Default)]
pub(super) struct Kallsyms {
    /// By address.
    symbols: Vec<Symbol>,
    names: String,
    modules: Vec<String>,
    hidden: bool,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    name_at: u32,
    name_len: u16,
    /// Index into `modules`.
    module: u16,
}

/// What an address in the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelSymbol<'a> {
    /// Name of the function.
    pub name: &'a str,
    /// Start of the function.
    pub address: u64,
    /// `[kernel]`, or `[module]`.
    pub module: &'a str,
}

impl Kallsyms {
    fn parse(mut reader: impl BufRead) -> io::Result<Self> {
        let mut table = Self { modules: vec!["[kernel]".to_owned()], ..Self::default() };
        let (mut line, mut text_lines) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            // Names are at most 512 bytes (KSYM_NAME_LEN).
            if io::Read::take(&mut reader, 4096).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some((address, name, module)) = std::str::from_utf8(&line).ok().and_then(text_symbol) else {
                continue;
            };
            text_lines += 1;
            if address != 0 && table.symbols.len() < MAX_SYMBOLS {
                table.add(address, name, module);
            }
        }
        table.hidden = text_lines > 0 && table.symbols.is_empty();
        // Stable: of several names for one address the first one is kept.
        table.symbols.sort_by_key(|symbol| symbol.address);
        table.symbols.dedup_by_key(|symbol| symbol.address);
        table.symbols.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    fn add(&mut self, address: u64, name: &str, module: Option<&str>) {
        let module = match module {
            None => 0,
            Some(module) => match self.modules.iter().rposition(|known| known == module) {
                Some(at) => at,
                None => {
                    self.modules.push(module.to_owned());
                    self.modules.len() - 1
                }
            },
        };
        let (Ok(name_at), Ok(name_len), Ok(module)) =
            (u32::try_from(self.names.len()), u16::try_from(name.len()), u16::try_from(module))
        else {
            return;
        };
        self.names.push_str(name);
        self.symbols.push(Symbol { address, name_at, name_len, module });
    }

    /// The function an address is in.
    pub(super) fn find(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols.get(after.checked_sub(1)?)?;
        let from = symbol.name_at as usize;
        (address - symbol.address < MAX_FUNCTION).then_some(())?;
        Some(KernelSymbol {
            name: self.names.get(from..from + usize::from(symbol.name_len))?,
            address: symbol.address,
            module: self.modules.get(usize::from(symbol.module))?,
        })
    }
}

/// `ADDRESS TYPE NAME [MODULE]`; only text: `t`, `T`, and their weak kin.
fn text_symbol(line: &str) -> Option<(u64, &str, Option<&str>)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    words.next().filter(|kind| matches!(*kind, "t" | "T" | "w" | "W"))?;
    Some((address, words.next()?, words.next()))
}

/// Reads the table when it is first needed, and again after misses.
#[derive(Debug, Default)]
pub(super) struct KernelSymbols {
    table: Option<Kallsyms>,
    read: Option<Instant>,
}

impl KernelSymbols {
    /// The function an address is in. Re-reads the table after a miss, at most once a minute;
    /// `reread` is called then, since earlier answers may have become wrong.
    pub(super) fn find(&mut self, address: u64, reread: impl FnOnce()) -> Option<KernelSymbol<'_>> {
        let known = self.table.as_ref().is_some_and(|table| table.find(address).is_some());
        if !known && self.read.is_none_or(|read| read.elapsed() >= REREAD_AFTER) {
            self.read = Some(Instant::now());
            match File::open("/proc/kallsyms").and_then(|file| Kallsyms::parse(BufReader::new(file))) {
                Ok(table) => {
                    if table.hidden && !self.is_hidden() {
                        tracing::warn!(
                            "kernel addresses are hidden: kernel frames stay without names; \
                             add CAP_SYSLOG or set sysctl kernel.kptr_restrict to 0 or 1"
                        );
                    }
                    self.table = Some(table);
                    reread();
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read /proc/kallsyms: kernel frames stay without names")
                }
            }
        }
        self.table.as_ref()?.find(address)
    }

    /// Whether the kernel gives no addresses to this process.
    pub(super) fn is_hidden(&self) -> bool {
        self.table.as_ref().is_none_or(|table| table.hidden)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "ffffffff81000000 T _stext\nffffffff81000000 T _text\nffffffff81000100 t do_work\n\
        ffffffff81000180 D some_data\nffffffffc0000000 t ext4_read\t[ext4]\n\
        ffffffffc0100000 t bpf_prog_6deef7357e7b4530_on_cpu\t[bpf]\nrubbish\n";

    #[test]
    fn addresses_find_their_function_and_module() {
        let table = Kallsyms::parse(TEXT.as_bytes()).unwrap();
        let find = |address| table.find(address).map(|symbol| (symbol.name, symbol.module, symbol.address));
        assert_eq!(find(0xffff_ffff_8100_0000), Some(("_stext", "[kernel]", 0xffff_ffff_8100_0000)));
        assert_eq!(find(0xffff_ffff_8100_01ff), Some(("do_work", "[kernel]", 0xffff_ffff_8100_0100)));
        assert_eq!(find(0xffff_ffff_c000_0010), Some(("ext4_read", "[ext4]", 0xffff_ffff_c000_0000)));
        assert_eq!(find(0xffff_ffff_c010_0001).unwrap().0, "bpf_prog_6deef7357e7b4530_on_cpu");
        assert_eq!(find(0xffff_ffff_a000_0000), None, "far from everything");
        assert_eq!(find(0x1000), None);
        assert!(!table.hidden);
    }

    #[test]
    fn zero_addresses_mean_hidden() {
        let table =
            Kallsyms::parse("0000000000000000 T _stext\n0000000000000000 t do_work\n".as_bytes()).unwrap();
        assert!(table.hidden);
        assert_eq!(table.find(0xffff_ffff_8100_0000), None);
    }

    #[test]
    fn a_miss_reads_the_table_only_once() {
        let mut symbols = KernelSymbols::default();
        let mut reads = 0;
        symbols.find(1, || reads += 1);
        symbols.find(1, || reads += 1);
        assert!(reads <= 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([0-9a-f]{0,18} [tTwD] .{0,20}\n){0,20}", address: u64) {
            let table = Kallsyms::parse(text.as_bytes()).unwrap();
            if let Some(symbol) = table.find(address) {
                prop_assert!(symbol.address <= address);
            }
        }
    }
}
