//! The smallest program that can become another one: it makes a list of system calls and ends.
//!
//! Init's last steps, up to and with the exec of the workload, are made by this program out of a sealed memory file, and
//! not by husk's own executable. So whatever a workload reaches as `/proc/self/exe`, `#!/proc/self/exe` or an ELF
//! interpreter of that name is a file of two pages that nobody can write to, and never the host's husk
//! (CVE-2019-5736). It also is all that stays of husk in memory while a created container waits for `start`.
//!
//! A table that ends in [`REAP`] makes it the container's init (`--init`): its child is the workload, it passes signals on
//! and takes in whatever ends below it. No file of the host's has to be in the container for that.
//!
//! The image has two segments: the headers and the code, not writable; and the data, which begins with the frame of the
//! error report and the table of calls. Pointers in the data are absolute.
#![expect(unsafe_code, reason = "the code is assembly, and the slice of it is made from two symbols")]

use std::convert::Infallible;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

/// Where the code's segment is mapped, headers included.
const CODE_ADDRESS: u64 = 0x40_0000;
/// Where the data's segment is mapped.
pub const DATA_ADDRESS: u64 = 0x41_0000;
/// Length of the error frame, which the data begins with: the report's bytes, then the descriptor it is written to.
pub const FRAME_LENGTH: usize = 16;
/// Length of the report: tag, errno, step, each four bytes.
pub const REPORT_LENGTH: usize = 12;
/// Length of a call in the table: number, six arguments, step, flags, and where the low half of the answer goes (0: nowhere).
/// Of the flags, [`PASSES_FAILURE`] is the lowest; above it stands how many calls are left out if the answer is 0.
pub const CALL_LENGTH: usize = 72;
/// The flag of a call whose failure does not end the program.
pub const PASSES_FAILURE: u32 = 1;
/// In the place of a call's number: the end of the table.
pub const END: u64 = u64::MAX;
/// In the place of a call's number: nothing more is called but what an init does, once the workload has got a SIGCONT, which
/// says that its init is ready. The first argument is the address of
/// [`REAP_LENGTH`] bytes: the mask of all signals, the workload's pid (four bytes), and room. Every signal is blocked.
pub const REAP: u64 = u64::MAX - 1;
/// Length of what [`REAP`] works with: mask, pid, status, `siginfo_t`.
pub const REAP_LENGTH: usize = 16 + 128;
/// Segments begin where pages do, whatever their size (up to 64 KiB on aarch64).
const DATA_OFFSET: u64 = 0x1_0000;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.husk_stub,\"a\"",
    ".globl husk_stub_start",
    ".globl husk_stub_end",
    "husk_stub_start:",
    "    cmp qword ptr [rsp], 1", // more arguments than ours: a script's interpreter, by way of /proc/self/exe
    "    jne 5f",
    "    mov rbx, 0x410010", // the table, behind the frame
    "2:  mov rax, [rbx]",
    "    cmp rax, -1",
    "    je 5f",
    "    mov rdi, [rbx + 8]",
    "    cmp rax, -2",
    "    je 7f",
    "    mov rsi, [rbx + 16]",
    "    mov rdx, [rbx + 24]",
    "    mov r10, [rbx + 32]",
    "    mov r8, [rbx + 40]",
    "    mov r9, [rbx + 48]",
    "    syscall",
    "    cmp rax, -4095",
    "    jae 4f",
    "    mov rcx, [rbx + 64]", // does a later call want the answer?
    "    test rcx, rcx",
    "    jz 3f",
    "    mov [rcx], eax",
    "3:  test rax, rax", // 0, and perhaps the next calls are for those who get another answer
    "    jnz 6f",
    "    mov ecx, [rbx + 60]",
    "    shr ecx, 1",
    "    imul ecx, ecx, 72",
    "    add rbx, rcx",
    "6:  add rbx, 72",
    "    jmp 2b",
    "4:  test dword ptr [rbx + 60], 1", // is its failure passed over?
    "    jnz 3b",
    "    neg eax",
    "    mov rsi, 0x410000",
    "    mov [rsi + 4], eax",
    "    mov ecx, [rbx + 56]",
    "    mov [rsi + 8], ecx",
    "    mov edi, [rsi + 12]",
    "    mov edx, 12",
    "    mov eax, 1", // write
    "    syscall",
    "5:  mov edi, 255",
    "6:  mov eax, 231", // exit_group
    "    syscall",
    "    ud2",
    "7:  mov r12, rdi",
    "    mov edi, [r12 + 8]",
    "    mov esi, 18", // SIGCONT
    "    mov eax, 62", // kill
    "    syscall",
    "8:  mov rdi, r12",
    "    lea rsi, [r12 + 16]",
    "    xor edx, edx",
    "    mov r10d, 8",
    "    mov eax, 128", // rt_sigtimedwait, for ever
    "    syscall",
    "    cmp eax, 17", // SIGCHLD
    "    je 9f",
    "    test eax, eax",
    "    jle 8b",
    "    mov edi, [r12 + 8]",
    "    mov esi, eax",
    "    mov eax, 62", // kill; a workload that has become another user is out of reach
    "    syscall",
    "    jmp 8b",
    "9:  mov edi, -1", // one SIGCHLD may stand for many ends
    "    lea rsi, [r12 + 12]",
    "    mov edx, 1", // WNOHANG
    "    xor r10d, r10d",
    "    mov eax, 61", // wait4
    "    syscall",
    "    test eax, eax",
    "    jle 8b",
    "    cmp eax, [r12 + 8]",
    "    jne 9b",
    "    mov eax, [r12 + 12]",
    "    movzx edi, ah", // the status of an exit,
    "    and eax, 127",
    "    jz 6b",
    "    lea edi, [rax + 128]", // or of a signal
    "    jmp 6b",
    ".globl husk_stub_signal",
    "husk_stub_signal:", // a handler, with the signal's number in edi
    "    add edi, 128",
    "    jmp 6b",
    "husk_stub_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.husk_stub,\"a\"",
    ".globl husk_stub_start",
    ".globl husk_stub_end",
    "husk_stub_start:",
    "    ldr x9, [sp]",
    "    cmp x9, #1",
    "    b.ne 5f",
    "    mov x19, #0x10",
    "    movk x19, #0x41, lsl #16",
    "2:  ldr x8, [x19]",
    "    cmn x8, #1",
    "    b.eq 5f",
    "    ldp x0, x1, [x19, #8]",
    "    cmn x8, #2",
    "    b.eq 7f",
    "    ldp x2, x3, [x19, #24]",
    "    ldp x4, x5, [x19, #40]",
    "    svc #0",
    "    cmn x0, #4095",
    "    b.hs 4f",
    "    ldr x9, [x19, #64]",
    "    cbz x9, 3f",
    "    str w0, [x9]",
    "3:  cbnz x0, 6f",
    "    ldr w9, [x19, #60]",
    "    lsr w9, w9, #1",
    "    mov x10, #72",
    "    madd x19, x9, x10, x19",
    "6:  add x19, x19, #72",
    "    b 2b",
    "4:  ldr w9, [x19, #60]",
    "    tbnz w9, #0, 3b",
    "    neg w9, w0",
    "    mov x1, #0x410000",
    "    str w9, [x1, #4]",
    "    ldr w10, [x19, #56]",
    "    str w10, [x1, #8]",
    "    ldr w0, [x1, #12]",
    "    mov x2, #12",
    "    mov x8, #64",
    "    svc #0",
    "5:  mov x0, #255",
    "10: mov x8, #94",
    "    svc #0",
    "    brk #1",
    "7:  mov x20, x0",
    "    ldr w0, [x20, #8]",
    "    mov x1, #18",  // SIGCONT
    "    mov x8, #129", // kill
    "    svc #0",
    "8:  mov x0, x20",
    "    add x1, x20, #16",
    "    mov x2, #0",
    "    mov x3, #8",
    "    mov x8, #137", // rt_sigtimedwait
    "    svc #0",
    "    cmp w0, #17",
    "    b.eq 9f",
    "    cmp w0, #0",
    "    b.le 8b",
    "    mov w1, w0",
    "    ldr w0, [x20, #8]",
    "    mov x8, #129", // kill
    "    svc #0",
    "    b 8b",
    "9:  mov x0, #-1",
    "    add x1, x20, #12",
    "    mov x2, #1",
    "    mov x3, #0",
    "    mov x8, #260", // wait4
    "    svc #0",
    "    cmp w0, #0",
    "    b.le 8b",
    "    ldr w9, [x20, #8]",
    "    cmp w0, w9",
    "    b.ne 9b",
    "    ldr w9, [x20, #12]",
    "    ubfx w0, w9, #8, #8",
    "    ands w9, w9, #127",
    "    b.eq 10b",
    "    add w0, w9, #128",
    "    b 10b",
    ".globl husk_stub_signal",
    "husk_stub_signal:",
    "    add w0, w0, #128",
    "    b 10b",
    "husk_stub_end:",
    ".popsection",
);

unsafe extern "C" {
    static husk_stub_start: u8;
    static husk_stub_end: u8;
    static husk_stub_signal: u8;
}

/// Gives the address in the program of a signal handler that ends it, with the status that a shell gives for the signal.
pub fn end_at_signal() -> u64 {
    let offset = (&raw const husk_stub_signal).addr() - (&raw const husk_stub_start).addr();
    CODE_ADDRESS + (HEADERS_LENGTH + offset) as u64
}

fn code() -> &'static [u8] {
    let start = &raw const husk_stub_start;
    let length = (&raw const husk_stub_end).addr() - start.addr();
    // SAFETY: both symbols are in the one section above, which is read-only data of this executable, in this order.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// Makes the executable for some data: a sealed memory file that closes on exec.
pub fn make(data: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // KERNEL(6.3): MFD_EXEC; before it every memory file is executable and the flag is unknown.
    let file = match rustix::fs::memfd_create(c"husk", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"husk", flags)?,
        answer => answer?,
    };
    let code = code();
    let mut head = Vec::with_capacity(HEADERS_LENGTH + code.len());
    write_headers(&mut head, code.len() as u64, data.len() as u64);
    head.extend_from_slice(code);
    let mut writer = std::fs::File::from(file);
    let to_errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    writer.write_all(&head).map_err(to_errno)?;
    std::os::unix::fs::FileExt::write_all_at(&writer, data, DATA_OFFSET).map_err(to_errno)?;
    let file = OwnedFd::from(writer);
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

/// Becomes the program; returns only on failure.
pub fn exec(file: &OwnedFd, name: &CStr) -> Result<Infallible, Errno> {
    let argv = [name.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the path is a constant C string; both arrays end in a null pointer and outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(super::last_errno())
}

const ELF_HEADER_LENGTH: u16 = 64;
const PROGRAM_HEADER_LENGTH: u16 = 56;
const PROGRAM_HEADERS: u16 = 3;
const HEADERS_LENGTH: usize = ELF_HEADER_LENGTH as usize + (PROGRAM_HEADER_LENGTH * PROGRAM_HEADERS) as usize;

/// `EM_X86_64` or `EM_AARCH64`.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

/// The headers of elf(5): one segment for headers and code, one for the data, and a stack that is not executable.
fn write_headers(out: &mut Vec<u8>, code_length: u64, data_length: u64) {
    const PT_LOAD: u32 = 1;
    const PT_GNU_STACK: u32 = 0x6474_e551;
    const READ: u32 = 4;
    const WRITE: u32 = 2;
    const EXECUTE: u32 = 1;
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2, MACHINE] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    out.extend_from_slice(&1u32.to_le_bytes());
    for word in [CODE_ADDRESS + HEADERS_LENGTH as u64, u64::from(ELF_HEADER_LENGTH), 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    for half in [ELF_HEADER_LENGTH, PROGRAM_HEADER_LENGTH, PROGRAM_HEADERS, 0, 0, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let code_length = HEADERS_LENGTH as u64 + code_length;
    for (kind, flags, offset, address, length) in [
        (PT_LOAD, READ | EXECUTE, 0, CODE_ADDRESS, code_length),
        (PT_LOAD, READ | WRITE, DATA_OFFSET, DATA_ADDRESS, data_length),
        (PT_GNU_STACK, READ | WRITE, 0, 0, 0),
    ] {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        for word in [offset, address, address, length, length, DATA_OFFSET] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_sealed() {
        let file = make(&[0; FRAME_LENGTH]).unwrap();
        let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        assert!(rustix::fs::fcntl_get_seals(&file).unwrap().contains(all));
        assert_eq!(rustix::io::write(&file, b"x"), Err(Errno::PERM));
    }

    #[test]
    fn a_directory_is_not_executed() {
        let directory = OwnedFd::from(std::fs::File::open("/").unwrap());
        assert_eq!(exec(&directory, c"x").err(), Some(Errno::ACCESS));
    }
}
