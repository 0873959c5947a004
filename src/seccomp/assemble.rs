//! Writes classic BPF backwards, so that the target of every jump is known when the jump is written.
//!
//! Conditional jumps reach 255 instructions ahead. A target farther away is reached by a jump beside the branch or, if it is
//! a return, by a copy of it: just as short, and one step less. Knows nothing of system calls.

use crate::sys::seccomp::Instruction;

// linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// What a branch asks of the accumulator.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Is(u32),
    IsAtLeast(u32),
}

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program under construction, last instruction first.
#[derive(Default)]
pub(super) struct Assembler {
    backwards: Vec<Instruction>,
    /// The return of each value that was written last, which is the one that is nearest.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// Gives a place that returns `value`.
    pub(super) fn give(&mut self, value: u32) -> Label {
        match self.returns.iter().find(|(known, _)| *known == value) {
            Some((_, label)) => *label,
            None => self.write_return(value),
        }
    }

    /// Writes a return of `value` in front of everything.
    pub(super) fn write_return(&mut self, value: u32) -> Label {
        let label = self.write(RETURN, 0, 0, value);
        self.returns.retain(|(known, _)| *known != value);
        self.returns.push((value, label));
        label
    }

    /// Writes a load of the word at `offset` of `struct seccomp_data`, followed by what is at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_through_to(next);
        self.write(LOAD_WORD, 0, 0, offset)
    }

    /// Writes a branch.
    pub(super) fn branch(&mut self, question: Question, yes: Label, no: Label) -> Label {
        let (code, operand) = match question {
            Question::Is(value) => (JUMP | 0x10, value),
            Question::IsAtLeast(value) => (JUMP | 0x30, value),
        };
        // Bringing `yes` near may take an instruction, which moves `no` away by one.
        let no = self.bring_near(no, REACH - 1);
        let yes = self.bring_near(yes, REACH);
        let skip = |label| u8::try_from(self.distance_to(label)).expect("both were brought near");
        let (jt, jf) = (skip(yes), skip(no));
        self.write(code, jt, jf, operand)
    }

    /// Makes the place in front of everything the same as `label`.
    pub(super) fn fall_through_to(&mut self, label: Label) {
        self.bring_near(label, 0);
    }

    /// Writes instructions whose jumps stay among themselves or lead to what was written before.
    pub(super) fn write_block(&mut self, block: impl DoubleEndedIterator<Item = Instruction>) -> Label {
        self.backwards.extend(block.rev());
        Label(self.backwards.len() - 1)
    }

    /// Gives the program, first instruction first.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.backwards.reverse();
        self.backwards
    }

    /// Gives a place at most `reach` instructions away that does what `label` does.
    fn bring_near(&mut self, label: Label, reach: usize) -> Label {
        let distance = self.distance_to(label);
        if distance <= reach {
            return label;
        }
        let target = self.backwards[label.0];
        if target.code == RETURN {
            return self.write_return(target.k);
        }
        let distance = u32::try_from(distance).expect("programs are short");
        self.write(JUMP, 0, 0, distance)
    }

    /// Gives how many instructions lie between the next one to be written and `label`.
    fn distance_to(&self, label: Label) -> usize {
        self.backwards.len() - 1 - label.0
    }

    fn write(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.backwards.push(Instruction { code, jt, jf, k });
        Label(self.backwards.len() - 1)
    }
}
