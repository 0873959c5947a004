//! The two things in the head of an ELF file that decide whether a kernel runs it: the machine, and the loader it names.
//! Reads what an image holds: every offset is somebody's word.

use std::os::fd::BorrowedFd;

/// `PT_INTERP` of elf.h.
const INTERPRETER: u32 = 3;

/// More program headers than any linker writes; a file that claims more is read so far.
const MOST_HEADERS: u64 = 128;

/// `PATH_MAX`, which bounds the loader's path for the kernel as well.
const MOST_PATH: u64 = 4096;

/// What an ELF file wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// `e_machine`.
    pub(super) machine: u16,
    pub(super) is_64_bit: bool,
    /// The dynamic loader, by its path.
    pub(super) loader: Option<String>,
}

impl Elf {
    /// Reads the head of a file; `None` where it is no ELF file, or not the whole of one's head.
    pub(super) fn read(file: BorrowedFd<'_>) -> Option<Self> {
        let head = read_at(file, 0, 64)?;
        if head.get(..4)? != b"\x7fELF" {
            return None;
        }
        let is_64_bit = match head.get(4)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let reader = Reader { is_big: *head.get(5)? == 2 };
        let machine = u16::try_from(reader.number(&head, 18, 2)?).ok()?;
        // Offsets of elf.h: e_phoff, e_phentsize, e_phnum; p_offset, p_filesz.
        let (table, entry_size, count, offset_at, size_at, width) =
            if is_64_bit { (32, 54, 56, 8, 32, 8) } else { (28, 42, 44, 4, 16, 4) };
        let table = reader.number(&head, table, width)?;
        let entry_size = reader.number(&head, entry_size, 2)?;
        let count = reader.number(&head, count, 2)?.min(MOST_HEADERS);
        let mut loader = None;
        for index in 0..count {
            let Some(header) = read_at(file, table.checked_add(index * entry_size)?, entry_size) else { break };
            if reader.number(&header, 0, 4) != Some(u64::from(INTERPRETER)) {
                continue;
            }
            let offset = reader.number(&header, offset_at, width)?;
            let size = reader.number(&header, size_at, width)?.min(MOST_PATH);
            let path = read_at(file, offset, size)?;
            let path = path.split(|byte| *byte == 0).next()?;
            loader = Some(String::from_utf8_lossy(path).into_owned());
            break;
        }
        Some(Self { machine, is_64_bit, loader })
    }

    /// The machine in the words of images.
    pub(super) fn architecture(&self) -> String {
        let name = match self.machine {
            3 => "386",
            8 => "mips",
            20 => "ppc",
            21 => "ppc64",
            22 => "s390x",
            40 => "arm",
            62 if self.is_64_bit => "amd64",
            62 => "amd64 (x32)",
            183 => "arm64",
            243 if self.is_64_bit => "riscv64",
            243 => "riscv32",
            258 => "loong64",
            other => return format!("machine {other}"),
        };
        name.to_owned()
    }

    /// Says whether this machine's kernel runs it without help.
    pub(super) fn is_native(&self) -> bool {
        match std::env::consts::ARCH {
            "x86_64" => matches!(self.machine, 62 | 3),
            // 32-bit programs where the processor has that mode, which not all have.
            "aarch64" => matches!(self.machine, 183 | 40),
            "x86" => self.machine == 3,
            "arm" => self.machine == 40,
            "riscv64" => self.machine == 243,
            "s390x" => self.machine == 22,
            "powerpc64" => self.machine == 21,
            "loongarch64" => self.machine == 258,
            _ => true,
        }
    }
}

/// Numbers of one byte order.
struct Reader {
    is_big: bool,
}

impl Reader {
    fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + width)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }
}

fn read_at(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    let count = rustix::io::pread(file, &mut bytes[..], offset).ok()?;
    bytes.truncate(count);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    fn read(bytes: &[u8]) -> Option<Elf> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Elf::read(file.as_fd())
    }

    /// A head of 64 bits with one program header, of a loader at byte 120.
    fn elf(machine: u16, big: bool, loader: &[u8]) -> Vec<u8> {
        let number = |value: u64, width: usize| {
            let bytes = value.to_le_bytes();
            let mut bytes = bytes[..width].to_vec();
            if big {
                bytes.reverse();
            }
            bytes
        };
        let mut file = vec![0; 120];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02");
        put(5, &[if big { 2 } else { 1 }]);
        put(18, &number(machine.into(), 2));
        put(32, &number(64, 8));
        put(54, &number(56, 2));
        put(56, &number(1, 2));
        put(64, &number(3, 4));
        put(72, &number(120, 8));
        put(96, &number(loader.len() as u64, 8));
        file.extend_from_slice(loader);
        file
    }

    #[test]
    fn a_head_says_machine_and_loader() {
        let found = read(&elf(62, false, b"/lib/ld-musl-x86_64.so.1\0")).unwrap();
        assert_eq!(
            (found.architecture().as_str(), found.loader.as_deref()),
            ("amd64", Some("/lib/ld-musl-x86_64.so.1"))
        );
        let found = read(&elf(22, true, b"/lib/ld64.so.1\0")).unwrap();
        assert_eq!((found.architecture().as_str(), found.loader.as_deref()), ("s390x", Some("/lib/ld64.so.1")));
        assert!(!found.is_native());
    }

    #[test]
    fn no_head_is_trusted() {
        assert_eq!(read(b"#!/bin/sh\n"), None);
        assert_eq!(read(b"\x7fELF"), None);
        let mut file = elf(62, false, b"/lib/ld.so\0");
        // A table behind the end of the world, and one of endless entries.
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(read(&file).and_then(|elf| elf.loader), None);
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(read(&file).unwrap().loader.as_deref(), Some("/lib/ld.so"));
    }

    #[test]
    fn our_own_executable_is_native() {
        let own = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Elf::read(own.as_fd()).unwrap().is_native());
    }
}
