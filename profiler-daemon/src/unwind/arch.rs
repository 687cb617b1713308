//! What is peculiar to x86_64: register numbers, the expressions compilers write, the signal frame.
//!
//! Another architecture gets a file like this one; nothing else in this room knows a register.

pub(super) mod code;

use gimli::{
    CfaRule, Encoding, Format, Operation, Reader, Register, RegisterRule, UnwindExpression, UnwindSection,
    X86_64,
};
use profiler_common::unwind::{Rule, bp, cfa};

use super::report::Form;

/// `e_machine` of the files whose tables can be built.
pub(super) const MACHINE: u16 = object::elf::EM_X86_64.0;

/// What holds at the first instruction of every function: the return address is on top.
pub(super) const AT_ENTRY: Rule = Rule { cfa: cfa::SP, bp: bp::SAME, bp_offset: 0, cfa_offset: 8 };

/// Functions start at multiples of this many bytes where the compiler has its way.
pub(super) const FUNCTION_ALIGNMENT: u64 = 16;

const SP: Register = X86_64::RSP;
const BP: Register = X86_64::RBP;
const RA: Register = X86_64::RA;

/// The column of the return address.
pub(super) const RETURN_ADDRESS: Register = RA;

/// Where the kernel saves rbp, rsp and rip in the frame of a signal handler, counted from the
/// stack pointer at the trampoline: `ucontext.uc_mcontext` (arch/x86/include/uapi/asm/sigcontext.h).
const SIGNAL_BP: i64 = 120;
const SIGNAL_SP: i64 = 160;
const SIGNAL_RA: i64 = 168;

/// What a row says of the registers that unwinding needs.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    /// The canonical frame address; `None` before the first instruction that defines it.
    pub(super) cfa: Option<CfaRule<usize>>,
    /// The caller's frame pointer.
    pub(super) bp: Option<RegisterRule<usize>>,
    /// The return address.
    pub(super) ra: Option<RegisterRule<usize>>,
}

impl Registers {
    /// Nothing is said yet.
    pub(super) const UNSET: Self = Self { cfa: None, bp: None, ra: None };

    /// The rule of a register that is kept track of.
    pub(super) fn get_mut(&mut self, register: Register) -> Option<&mut Option<RegisterRule<usize>>> {
        match register {
            BP => Some(&mut self.bp),
            RA => Some(&mut self.ra),
            _ => None,
        }
    }

    /// The rule, as the kernel half knows it, and the form it was given in. The second form, if
    /// any, tells of a loss beside it.
    pub(super) fn rule<R, S>(&self, section: &S) -> (Rule, Form, Option<Form>)
    where
        R: Reader<Offset = usize>,
        S: UnwindSection<R>,
    {
        // The signal frame has an expression for everything, and comes first for that reason.
        let ra_at = match &self.ra {
            Some(RegisterRule::Offset(-8)) => None,
            Some(RegisterRule::Undefined) => return (Rule::END, Form::End, None),
            Some(RegisterRule::Expression(expression)) => Some(read(expression, section)),
            _ => return (Rule::NONE, Form::OtherReturnAddress, None),
        };
        let shape = match &self.cfa {
            Some(CfaRule::RegisterAndOffset { register, offset }) => Shape::Register(*register, *offset),
            Some(CfaRule::Expression(expression)) => read(expression, section),
            None => return (Rule::NONE, Form::OtherRegister, None),
        };
        if let Some(ra) = ra_at {
            let signal =
                matches!((&ra, &shape), (Shape::Register(SP, SIGNAL_RA), Shape::Deref(SP, SIGNAL_SP, 0)))
                    && match &self.bp {
                        Some(RegisterRule::Expression(bp)) => {
                            matches!(read(bp, section), Shape::Register(SP, SIGNAL_BP))
                        }
                        _ => false,
                    };
            return if signal {
                (code::SIGNAL, Form::Signal, None)
            } else {
                (Rule::NONE, Form::OtherReturnAddress, None)
            };
        }
        let halves = |low: i64, high: i64| {
            let (low, high) = (i16::try_from(low).ok()?, i16::try_from(high).ok()?);
            Some(i32::from(high) << 16 | i32::from(low) & 0xffff)
        };
        let whole = |offset: i64| i32::try_from(offset).ok();
        let (kind, offset, form) = match shape {
            Shape::Register(SP, offset) => (cfa::SP, whole(offset), Form::Sp),
            Shape::Register(BP, offset) => (cfa::BP, whole(offset), Form::Bp),
            Shape::Register(register, offset) if is_general(register) => {
                (cfa::REGISTER + register.0 as u8, whole(offset), Form::Register)
            }
            Shape::Indexed(register, at, plus) if is_general(register) => {
                (cfa::INDEXED + register.0 as u8, halves(at, plus), Form::Indexed)
            }
            Shape::Register(..) | Shape::Indexed(..) => return (Rule::NONE, Form::OtherRegister, None),
            Shape::Deref(SP, at, plus) => (cfa::DEREF_SP, halves(at, plus), Form::Deref),
            Shape::Deref(BP, at, plus) => (cfa::DEREF_BP, halves(at, plus), Form::Deref),
            Shape::Plt(threshold) => (cfa::PLT, Some(threshold), Form::Plt),
            Shape::Deref(..) | Shape::Other => return (Rule::NONE, Form::OtherExpression, None),
        };
        let Some(cfa_offset) = offset else { return (Rule::NONE, Form::OtherOffset, None) };
        match self.frame_pointer(section, kind, cfa_offset) {
            Some((bp, bp_offset)) => (Rule { cfa: kind, bp, bp_offset, cfa_offset }, form, None),
            None => (Rule { cfa: kind, bp: bp::LOST, bp_offset: 0, cfa_offset }, form, Some(Form::BpLost)),
        }
    }

    /// Where the caller's frame pointer is; `None` if it is there but cannot be expressed.
    fn frame_pointer<R, S>(&self, section: &S, kind: u8, cfa_offset: i32) -> Option<(u8, i16)>
    where
        R: Reader<Offset = usize>,
        S: UnwindSection<R>,
    {
        match &self.bp {
            None | Some(RegisterRule::SameValue | RegisterRule::Register(BP)) => Some((bp::SAME, 0)),
            Some(RegisterRule::Offset(offset)) => Some((bp::AT_CFA, i16::try_from(*offset).ok()?)),
            Some(RegisterRule::Expression(expression)) => match read(expression, section) {
                Shape::Register(BP, offset) => Some((bp::AT_BP, i16::try_from(offset).ok()?)),
                // The same place, counted from the CFA.
                Shape::Register(SP, offset) if kind == cfa::SP => {
                    Some((bp::AT_CFA, i16::try_from(offset.checked_sub(cfa_offset.into())?).ok()?))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether it is one of the sixteen that the interrupted registers hold.
fn is_general(register: Register) -> bool {
    register.0 < RA.0
}

/// The expressions that are known.
#[derive(Debug)]
enum Shape {
    /// Register plus offset.
    Register(Register, i64),
    /// What memory at register plus offset holds, plus an offset.
    Deref(Register, i64, i64),
    /// What memory at the stack pointer plus eight times a register plus an offset holds, plus an offset.
    Indexed(Register, i64, i64),
    /// `rsp + 8 + ((rip & 15) >= threshold ? 8 : 0)`: lazy PLT entries.
    Plt(i32),
    Other,
}

/// Most operations of an expression that is known.
const MAX_OPERATIONS: usize = 9;

fn read<R, S>(expression: &UnwindExpression<usize>, section: &S) -> Shape
where
    R: Reader<Offset = usize>,
    S: UnwindSection<R>,
{
    let Ok(expression) = expression.get(section) else { return Shape::Other };
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    let mut operations = expression.operations(encoding);
    let mut found = [const { None::<Step> }; MAX_OPERATIONS];
    let mut count = 0;
    loop {
        match operations.next() {
            Ok(None) => break,
            Ok(Some(operation)) => {
                let (Some(slot), Some(step)) = (found.get_mut(count), step(&operation)) else {
                    return Shape::Other;
                };
                *slot = Some(step);
                count += 1;
            }
            Err(_) => return Shape::Other,
        }
    }
    match found {
        [Some(Step::Register(register, offset)), None, ..] => Shape::Register(register, offset),
        [Some(Step::Register(register, offset)), Some(Step::Deref), None, ..] => {
            Shape::Deref(register, offset, 0)
        }
        [Some(Step::Register(register, offset)), Some(Step::Deref), Some(Step::Add(plus)), None, ..] => {
            Shape::Deref(register, offset, plus)
        }
        [
            Some(Step::Register(SP, at)),
            Some(Step::Register(register, 0)),
            Some(Step::Number(8)),
            Some(Step::Mul),
            Some(Step::Plus),
            Some(Step::Deref),
            Some(Step::Add(plus)),
            None,
            ..,
        ] => Shape::Indexed(register, at, plus),
        [
            Some(Step::Register(SP, 8)),
            Some(Step::Register(RA, 0)),
            Some(Step::Number(15)),
            Some(Step::And),
            Some(Step::Number(threshold @ 0..=15)),
            Some(Step::Ge),
            Some(Step::Number(3)),
            Some(Step::Shl),
            Some(Step::Plus),
        ] => Shape::Plt(threshold as i32),
        _ => Shape::Other,
    }
}

/// The operations that known expressions are made of.
#[derive(Clone, Copy, Debug)]
enum Step {
    Register(Register, i64),
    Deref,
    Add(i64),
    Number(u64),
    And,
    Ge,
    Shl,
    Mul,
    Plus,
}

fn step<R: Reader<Offset = usize>>(operation: &Operation<R>) -> Option<Step> {
    Some(match *operation {
        Operation::RegisterOffset { register, offset, .. } => Step::Register(register, offset),
        Operation::Deref { size: 8, space: false, .. } => Step::Deref,
        Operation::PlusConstant { value } => Step::Add(i64::try_from(value).ok()?),
        Operation::UnsignedConstant { value } => Step::Number(value),
        Operation::And => Step::And,
        Operation::Ge => Step::Ge,
        Operation::Shl => Step::Shl,
        Operation::Mul => Step::Mul,
        Operation::Plus => Step::Plus,
        _ => return None,
    })
}
