//! Runs a filter as the kernel does (kernel/seccomp.c, net/core/filter.c), to know before it is loaded what it says to a
//! call. Knows the instructions that the kernel lets a filter have and compilers of filters write; decides nothing itself.

use crate::sys::seccomp::Instruction;

/// What the kernel shows a filter of a system call, but for the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

/// Runs a program and counts its steps; `None` where it has an instruction that is not known here.
pub(super) fn trace(program: &[Instruction], call: &Call) -> Option<(u32, usize)> {
    let load = |offset: u32| -> Option<u32> {
        let (argument, half) = ((offset.wrapping_sub(16) / 8) as usize, offset % 8);
        match offset {
            0 => Some(call.number),
            4 => Some(call.architecture),
            16..64 if half == 0 => u32::try_from(call.arguments[argument] & 0xffff_ffff).ok(),
            16..64 if half == 4 => u32::try_from(call.arguments[argument] >> 32).ok(),
            _ => None,
        }
    };
    let mut accumulator = 0;
    let mut at = 0_usize;
    // Every jump goes forward, so there is an end.
    for step in 1.. {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1 + match code {
            0x20 => {
                accumulator = load(k)?;
                0
            }
            0x54 => {
                accumulator &= k;
                0
            }
            0x05 => k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x45 => branch(accumulator & k != 0),
            0x06 => return Some((k, step)),
            _ => return None,
        };
    }
    None
}
