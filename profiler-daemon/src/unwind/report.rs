//! What a table was made from: counts by form, and everything that had to be left out.

/// Counts of one file. Rows are those of the file's own programs, before equal neighbours merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frame descriptions that gave rows.
    pub functions: u64,
    /// Rows of the finished table.
    pub rows: u64,
    /// Rows by form, see [`Form`].
    pub forms: [u64; Form::COUNT],
    /// Frame descriptions that could not be read or evaluated; their addresses have no rule.
    pub malformed: u64,
    /// Frame descriptions of no address at all, or of addresses that are not code of this file:
    /// what linkers leave of functions they removed.
    pub outside: u64,
    /// Frame descriptions that were cut or left out because another one covers their addresses.
    pub overlapping: u64,
    /// Sections that ended in the middle of an entry, and `.debug_frame` that could not be used
    /// beside an `.eh_frame` that could.
    pub truncated: u64,
    /// Pages left without rules because they had too many rows.
    pub dropped_pages: u64,
    /// Rows left without a rule because the file has too many distinct ones.
    pub dropped_rules: u64,
    /// The entry point had no frame description and was taken for the outermost frame.
    pub entry_points: u64,
    /// Signal trampolines without a frame description that were recognised by their code.
    pub trampolines: u64,
    /// Slots of procedure linkage tables without a frame description that were recognised.
    pub plt_slots: u64,
}

/// What a row says, as far as these tables care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Form {
    /// CFA at an offset from the stack pointer.
    Sp,
    /// CFA at an offset from the frame pointer.
    Bp,
    /// The expression of lazy PLT entries.
    Plt,
    /// The frame that the kernel builds to deliver a signal.
    Signal,
    /// CFA read from memory at an offset from stack or frame pointer.
    Deref,
    /// CFA at an offset from another general register.
    Register,
    /// CFA read from memory behind an array of eights, whose length is in a register.
    Indexed,
    /// The return address is undefined: the outermost frame.
    End,
    /// Not expressed: no CFA, or one in a register that is not a general one.
    OtherRegister,
    /// Not expressed: CFA by another expression.
    OtherExpression,
    /// Not expressed: an offset that does not fit.
    OtherOffset,
    /// Not expressed: the return address is not at `CFA - 8`.
    OtherReturnAddress,
    /// Expressed but for the frame pointer, which is said to be lost: it is in another register,
    /// or found by another expression. Counted beside the row's form.
    BpLost,
}

impl Form {
    /// How many forms there are.
    pub const COUNT: usize = Self::BpLost as usize + 1;

    /// All forms with their names, in the order of [`Report::forms`].
    pub const NAMES: [&str; Self::COUNT] = [
        "sp",
        "bp",
        "plt",
        "signal",
        "deref",
        "register",
        "indexed",
        "end",
        "other-register",
        "other-expression",
        "other-offset",
        "other-return-address",
        "bp-lost",
    ];
}

impl Report {
    /// Rows of a form.
    #[must_use]
    pub fn count(&self, form: Form) -> u64 {
        self.forms.get(form as usize).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, form: Form) {
        if let Some(count) = self.forms.get_mut(form as usize) {
            *count += 1;
        }
    }

    /// Rows of the file's own programs.
    #[must_use]
    pub fn raw_rows(&self) -> u64 {
        self.forms.iter().take(Form::BpLost as usize).sum()
    }

    /// Rows that the tables cannot express: their addresses have no rule.
    #[must_use]
    pub fn not_expressed(&self) -> u64 {
        [Form::OtherRegister, Form::OtherExpression, Form::OtherOffset, Form::OtherReturnAddress]
            .into_iter()
            .map(|form| self.count(form))
            .sum()
    }

    /// All counts, in an order that the cache relies on.
    pub(super) fn to_array(self) -> [u64; Self::FIELDS] {
        let mut array = [0; Self::FIELDS];
        let (forms, rest) = array.split_at_mut(Form::COUNT);
        forms.copy_from_slice(&self.forms);
        rest.copy_from_slice(&[
            self.functions,
            self.rows,
            self.malformed,
            self.outside,
            self.overlapping,
            self.truncated,
            self.dropped_pages,
            self.dropped_rules,
            self.entry_points,
            self.trampolines,
            self.plt_slots,
        ]);
        array
    }

    /// The counts of [`Report::to_array`].
    pub(super) fn from_array(array: [u64; Self::FIELDS]) -> Self {
        let mut forms = [0; Form::COUNT];
        let (head, rest) = array.split_at(Form::COUNT);
        forms.copy_from_slice(head);
        let at = |index: usize| rest.get(index).copied().unwrap_or_default();
        Self {
            functions: at(0),
            rows: at(1),
            forms,
            malformed: at(2),
            outside: at(3),
            overlapping: at(4),
            truncated: at(5),
            dropped_pages: at(6),
            dropped_rules: at(7),
            entry_points: at(8),
            trampolines: at(9),
            plt_slots: at(10),
        }
    }

    /// Numbers in a report.
    pub(super) const FIELDS: usize = Form::COUNT + 11;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_being_an_array() {
        let array = std::array::from_fn(|at| at as u64 + 1);
        assert_eq!(Report::from_array(array).to_array(), array);
    }

    #[test]
    fn rows_are_counted_once() {
        let mut report = Report::default();
        for form in [Form::Sp, Form::BpLost, Form::End, Form::OtherOffset] {
            report.add(form);
        }
        assert_eq!((report.raw_rows(), report.not_expressed()), (3, 1));
    }
}
