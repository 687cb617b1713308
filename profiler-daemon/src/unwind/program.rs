//! Runs the call-frame programs of a section, and keeps of each row what unwinding needs.
//!
//! A row is three registers here, not all of them: that is what makes a million rows cheap, and it
//! bounds what a hostile program can make us copy.

use gimli::{
    CallFrameInstruction, CallFrameInstructionIter, CfaRule, CommonInformationEntry, Reader, RegisterRule,
};

use super::arch::Registers;

/// Deepest `DW_CFA_remember_state`. Compilers nest one deep.
const MAX_REMEMBERED: usize = 16;

/// A program that cannot be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<gimli::Error> for Malformed {
    fn from(_: gimli::Error) -> Self {
        Self
    }
}

/// What both programs of a function share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    code: u64,
    data: i64,
}

impl Factors {
    /// Those of an entry.
    pub(super) fn of<R: Reader<Offset = usize>>(cie: &CommonInformationEntry<R>) -> Self {
        Self { code: cie.code_alignment_factor(), data: cie.data_alignment_factor() }
    }
}

/// Runs the program of a common entry: what its functions start with.
pub(super) fn initial<R: Reader<Offset = usize>>(
    instructions: CallFrameInstructionIter<'_, R>,
    factors: Factors,
) -> Result<Registers, Malformed> {
    let mut machine = Machine { factors, initial: None, now: Registers::UNSET, remembered: Vec::new() };
    machine.run(instructions, 0, |_, _| true)?;
    Ok(machine.now)
}

/// Runs the program of a function that starts at `start`. `row` gets each address where registers
/// may change, ascending, with what is in force from there on; it answers whether to go on.
pub(super) fn run<R: Reader<Offset = usize>>(
    instructions: CallFrameInstructionIter<'_, R>,
    factors: Factors,
    initial: &Registers,
    start: u64,
    row: impl FnMut(u64, &Registers) -> bool,
) -> Result<(), Malformed> {
    let now = initial.clone();
    Machine { factors, initial: Some(initial), now, remembered: Vec::new() }.run(instructions, start, row)
}

struct Machine<'a> {
    factors: Factors,
    /// What `DW_CFA_restore` goes back to; there is nothing yet while a common entry's program runs.
    initial: Option<&'a Registers>,
    now: Registers,
    remembered: Vec<Registers>,
}

impl Machine<'_> {
    fn run<R: Reader<Offset = usize>>(
        &mut self,
        mut instructions: CallFrameInstructionIter<'_, R>,
        start: u64,
        mut row: impl FnMut(u64, &Registers) -> bool,
    ) -> Result<(), Malformed> {
        let mut address = start;
        while let Some(instruction) = instructions.next()? {
            let next = match instruction {
                CallFrameInstruction::SetLoc { address } => address,
                CallFrameInstruction::AdvanceLoc { delta } => self
                    .factors
                    .code
                    .checked_mul(delta.into())
                    .and_then(|bytes| address.checked_add(bytes))
                    .ok_or(Malformed)?,
                other => {
                    self.apply(other)?;
                    continue;
                }
            };
            if next < address {
                return Err(Malformed);
            }
            if next > address {
                if !row(address, &self.now) {
                    return Ok(());
                }
                address = next;
            }
        }
        row(address, &self.now);
        Ok(())
    }

    fn apply(&mut self, instruction: CallFrameInstruction<usize>) -> Result<(), Malformed> {
        use CallFrameInstruction as I;
        let factors = self.factors;
        let factored = |offset: i64| offset.wrapping_mul(factors.data);
        let (register, rule) = match instruction {
            I::DefCfa { register, offset } => {
                self.now.cfa = Some(CfaRule::RegisterAndOffset { register, offset: offset as i64 });
                return Ok(());
            }
            I::DefCfaSf { register, factored_offset } => {
                let offset = factored(factored_offset);
                self.now.cfa = Some(CfaRule::RegisterAndOffset { register, offset });
                return Ok(());
            }
            I::DefCfaRegister { register: new } => {
                let Some(CfaRule::RegisterAndOffset { register, .. }) = &mut self.now.cfa else {
                    return Err(Malformed);
                };
                *register = new;
                return Ok(());
            }
            I::DefCfaOffset { offset } => return self.set_offset(offset as i64),
            I::DefCfaOffsetSf { factored_offset } => return self.set_offset(factored(factored_offset)),
            I::DefCfaExpression { expression } => {
                self.now.cfa = Some(CfaRule::Expression(expression));
                return Ok(());
            }
            I::RememberState => {
                if self.remembered.len() >= MAX_REMEMBERED {
                    return Err(Malformed);
                }
                self.remembered.push(self.now.clone());
                return Ok(());
            }
            I::RestoreState => {
                self.now = self.remembered.pop().ok_or(Malformed)?;
                return Ok(());
            }
            I::Restore { register } => {
                let mut initial = self.initial.ok_or(Malformed)?.clone();
                if let (Some(now), Some(initial)) = (self.now.get_mut(register), initial.get_mut(register)) {
                    *now = initial.take();
                }
                return Ok(());
            }
            I::Undefined { register } => (register, RegisterRule::Undefined),
            I::SameValue { register } => (register, RegisterRule::SameValue),
            I::Offset { register, factored_offset } => {
                (register, RegisterRule::Offset(factored(factored_offset as i64)))
            }
            I::OffsetExtendedSf { register, factored_offset } => {
                (register, RegisterRule::Offset(factored(factored_offset)))
            }
            I::ValOffset { register, factored_offset } => {
                (register, RegisterRule::ValOffset(factored(factored_offset as i64)))
            }
            I::ValOffsetSf { register, factored_offset } => {
                (register, RegisterRule::ValOffset(factored(factored_offset)))
            }
            I::Register { dest_register, src_register } => {
                (dest_register, RegisterRule::Register(src_register))
            }
            I::Expression { register, expression } => (register, RegisterRule::Expression(expression)),
            I::ValExpression { register, expression } => (register, RegisterRule::ValExpression(expression)),
            I::ArgsSize { .. } | I::NegateRaState | I::Nop => return Ok(()),
            _ => return Err(Malformed),
        };
        if let Some(slot) = self.now.get_mut(register) {
            *slot = Some(rule);
        }
        Ok(())
    }

    fn set_offset(&mut self, new: i64) -> Result<(), Malformed> {
        let Some(CfaRule::RegisterAndOffset { offset, .. }) = &mut self.now.cfa else {
            return Err(Malformed);
        };
        *offset = new;
        Ok(())
    }
}
