//! System calls by number, for people: what the kernel has as a number. Decides nothing.

use super::abi::Abi;
use super::table::{Row, number_of_slot};

/// Gives the name of a system call, from the architecture as audit records have it (linux/audit.h).
pub fn call_name(architecture: u32, number: i64) -> Option<&'static str> {
    let number = u32::try_from(number).ok()?;
    let abi = Abi::OF_THIS_MACHINE.iter().find(|abi| {
        abi.audit_architecture() == architecture && (abi.first_number() == 0 || number >= abi.first_number())
    })?;
    let is_it = |row: &Row| row.slot(abi.column()).is_some_and(|slot| number_of_slot(slot) == number);
    Row::all().find(is_it).map(Row::name)
}

/// Gives the number of a system call of this machine's own ABI.
pub fn call_number(name: &str) -> Option<u32> {
    let column = Abi::OF_THIS_MACHINE[0].column();
    Row::find(name).and_then(|row| row.slot(column)).map(number_of_slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_of_their_architecture() {
        for (architecture, number, name) in [
            (0xc000_003e, 165, Some("mount")),
            (0x4000_0003, 21, Some("mount")),
            (0xc000_003e, 100_000, None),
            (0xc000_003e, -1, None),
            (0xdead, 1, None),
        ] {
            assert_eq!(call_name(architecture, number), name, "{architecture:x} {number}");
        }
    }
}
