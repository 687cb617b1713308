//! The oracle that knows expressions: gimli looks each address up in `.eh_frame_hdr` and computes
//! with made-up registers and memory; a rule is right if it computes the same.

use std::fs;
use std::path::Path;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EhFrameHdr, Encoding, EndianSlice, EvaluationResult, Format,
    LittleEndian, RegisterRule, UnwindContext, UnwindExpression, UnwindSection as _, UnwindTableRow, Value,
};
use object::{Object as _, ObjectSection as _};
use profiler_common::unwind::{Rule, bp, cfa};
use profiler_daemon::unwind::Table;

use super::Tally;

type Section<'a> = EhFrame<EndianSlice<'a, LittleEndian>>;

const BP: usize = 6;
const SP: usize = 7;
const RA: usize = 16;
const ENCODING: Encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };

/// A caller as both sides compute it: stack pointer, frame pointer, return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    There(u64, Option<u64>, u64),
    /// There is none: the outermost frame.
    End,
    Unknown,
}

/// Compares a table with what gimli computes, at the start, the second and the last address of
/// every row. Addresses around PLT expressions are all compared.
pub(crate) fn check_numbers(path: &Path, table: &Table) -> Tally {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = |name| {
        let section = file.section_by_name(name).unwrap();
        (section.data().unwrap(), section.address())
    };
    let (frame, frame_at) = section(".eh_frame");
    let (header, header_at) = section(".eh_frame_hdr");
    let bases = BaseAddresses::default().set_eh_frame(frame_at).set_eh_frame_hdr(header_at);
    let frame = EhFrame::new(frame, LittleEndian);
    let header = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).unwrap();
    let index = header.table().unwrap();

    let mut tally = Tally::default();
    let mut context = UnwindContext::new();
    let mut looked_up = UnwindContext::new();
    let mut entries = frame.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let function = partial.parse(Section::cie_from_offset).unwrap();
        let mut rows = function.rows(&frame, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let (start, end) = (row.start_address(), row.end_address());
            if start == 0 || start >= end {
                continue;
            }
            tally.rows += 1;
            let mut addresses = vec![start, start + 1, end - 1];
            if matches!(row.cfa(), CfaRule::Expression(_)) {
                addresses = (start..end).take(1 << 12).collect();
            }
            addresses.retain(|&address| address < end);
            addresses.dedup();
            let mut reason = None;
            for address in addresses {
                tally.addresses += 1;
                let Ok(row) = index.unwind_info_for_address(
                    &frame,
                    &bases,
                    &mut looked_up,
                    address,
                    Section::cie_from_offset,
                ) else {
                    // The index names another of several functions that overlap here.
                    tally.unchecked += 1;
                    continue;
                };
                match compare(&frame, row, table.lookup(address), address) {
                    Ok(None) => {}
                    Ok(why) => reason = why,
                    Err(difference) => tally.wrong.push(difference),
                }
            }
            if let Some(reason) = reason {
                *tally.not_expressed.entry(reason).or_default() += 1;
            }
        }
    }
    tally
}

/// What cannot be expressed, if anything; or the difference that must not be.
fn compare(
    frame: &Section<'_>,
    row: &UnwindTableRow<usize>,
    rule: Rule,
    pc: u64,
) -> Result<Option<&'static str>, String> {
    let mut reason = None;
    for seed in 1..=3 {
        let machine = Machine::new(seed, pc);
        let truth = machine.by_gimli(frame, row);
        let ours = machine.by_rule(rule);
        let difference = || Err(format!("{pc:#x}: {truth:x?} by {:?}, but {ours:x?} by {rule:?}", row.cfa()));
        match (truth, ours) {
            (truth, ours) if truth == ours => {}
            (Caller::There(..) | Caller::Unknown, Caller::Unknown) => {
                reason = Some(why_not(frame, row).ok_or_else(|| difference().unwrap_err())?);
            }
            (Caller::There(sp, Some(_), ra), Caller::There(our_sp, None, our_ra))
                if (sp, ra) == (our_sp, our_ra) =>
            {
                reason = Some("frame pointer lost");
            }
            _ => return difference(),
        }
    }
    Ok(reason)
}

/// Why a row has no rule, if its form is one of those that cannot be expressed.
fn why_not(frame: &Section<'_>, row: &UnwindTableRow<usize>) -> Option<&'static str> {
    if !matches!(row.register(gimli::X86_64::RA), Some(RegisterRule::Offset(-8))) {
        return Some("return address elsewhere");
    }
    match row.cfa() {
        CfaRule::RegisterAndOffset { register, .. } if usize::from(register.0) >= RA => {
            Some("CFA in another register")
        }
        CfaRule::RegisterAndOffset { offset, .. } => {
            i32::try_from(*offset).is_err().then_some("offset too large")
        }
        CfaRule::Expression(expression) => {
            let bytes = expression.get(frame).unwrap().0.slice();
            // DW_OP_breg6 or 7, a number, DW_OP_deref, and perhaps DW_OP_plus_uconst with one.
            let after_number =
                |from: usize| from + 1 + bytes[from..].iter().take_while(|&&byte| byte >= 0x80).count();
            let deref = matches!(bytes[0], 0x76 | 0x77) && bytes.get(after_number(1)) == Some(&0x06);
            let rest = if deref { &bytes[after_number(1) + 1..] } else { bytes };
            (!(deref && matches!(rest, [] | [0x23, _]))).then_some("another CFA expression")
        }
    }
}

/// Registers and memory that never were.
struct Machine {
    registers: [u64; 17],
    seed: u64,
}

impl Machine {
    fn new(seed: u64, pc: u64) -> Self {
        let mut registers = std::array::from_fn(|at| mix(seed, at as u64) & 0x7fff_ffff_fff8);
        registers[RA] = pc;
        Self { registers, seed }
    }

    fn memory(&self, address: u64) -> u64 {
        mix(self.seed, address)
    }

    fn by_rule(&self, rule: Rule) -> Caller {
        let (sp, bp) = (self.registers[SP], self.registers[BP]);
        let low = i64::from(rule.cfa_offset as i16);
        let high = i64::from((rule.cfa_offset >> 16) as i16);
        let cfa = match rule.cfa {
            cfa::SP => sp.wrapping_add_signed(rule.cfa_offset.into()),
            cfa::BP => bp.wrapping_add_signed(rule.cfa_offset.into()),
            cfa::PLT => sp + 8 + if (self.registers[RA] & 15) as i32 >= rule.cfa_offset { 8 } else { 0 },
            cfa::DEREF_SP => self.memory(sp.wrapping_add_signed(low)).wrapping_add_signed(high),
            cfa::DEREF_BP => self.memory(bp.wrapping_add_signed(low)).wrapping_add_signed(high),
            kind @ cfa::REGISTER..=cfa::LAST_REGISTER => {
                let register = self.registers[usize::from(kind - cfa::REGISTER)];
                register.wrapping_add_signed(rule.cfa_offset.into())
            }
            kind @ cfa::INDEXED..=cfa::LAST_INDEXED => {
                let index = self.registers[usize::from(kind - cfa::INDEXED)];
                let at = sp.wrapping_add(index.wrapping_mul(8)).wrapping_add_signed(low);
                self.memory(at).wrapping_add_signed(high)
            }
            cfa::SIGNAL => {
                let at = |offset| self.memory(sp + offset);
                return Caller::There(at(160), Some(at(120)), at(168));
            }
            cfa::END => return Caller::End,
            _ => return Caller::Unknown,
        };
        let caller_bp = match rule.bp {
            bp::SAME => Some(bp),
            bp::AT_CFA => Some(self.memory(cfa.wrapping_add_signed(rule.bp_offset.into()))),
            bp::AT_BP => Some(self.memory(bp.wrapping_add_signed(rule.bp_offset.into()))),
            _ => None,
        };
        Caller::There(cfa, caller_bp, self.memory(cfa.wrapping_sub(8)))
    }

    fn by_gimli(&self, frame: &Section<'_>, row: &UnwindTableRow<usize>) -> Caller {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers[usize::from(register.0)].wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(frame, *expression, None),
        };
        let register = |number: usize, cfa: u64| match row.register(gimli::Register(number as u16)) {
            None | Some(RegisterRule::SameValue) => Some(self.registers[number]),
            Some(RegisterRule::Offset(offset)) => Some(self.memory(cfa.wrapping_add_signed(offset))),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(other)) => Some(self.registers[usize::from(other.0)]),
            Some(RegisterRule::Expression(expression)) => {
                Some(self.memory(self.evaluate(frame, expression, Some(cfa))))
            }
            Some(RegisterRule::ValExpression(expression)) => {
                Some(self.evaluate(frame, expression, Some(cfa)))
            }
            Some(_) => None,
        };
        match (row.register(gimli::X86_64::RA), register(RA, cfa)) {
            (Some(RegisterRule::Undefined), _) => Caller::End,
            (Some(_), Some(ra)) => Caller::There(cfa, register(BP, cfa), ra),
            _ => Caller::Unknown,
        }
    }

    fn evaluate(&self, frame: &Section<'_>, expression: UnwindExpression<usize>, cfa: Option<u64>) -> u64 {
        let mut evaluation = expression.get(frame).unwrap().evaluation(ENCODING);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut result = evaluation.evaluate().unwrap();
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, .. } => {
                    evaluation.resume_with_memory(Value::Generic(self.memory(address))).unwrap()
                }
                EvaluationResult::RequiresRegister { register, .. } => evaluation
                    .resume_with_register(Value::Generic(self.registers[usize::from(register.0)]))
                    .unwrap(),
                other => panic!("an expression asks for {other:?}"),
            };
        }
        // An expression may leave more than its result on the stack.
        match evaluation.value_result() {
            Some(value) => value.to_u64(u64::MAX).unwrap(),
            None => evaluation
                .as_result()
                .iter()
                .find_map(|piece| match piece.location {
                    gimli::Location::Address { address } => Some(address),
                    _ => None,
                })
                .unwrap(),
        }
    }
}

/// Some number that depends on both in no simple way (splitmix64).
fn mix(seed: u64, value: u64) -> u64 {
    let mut mixed = value.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
