//! System calls by number, so that a test can ask what a filter says to any of them. Only for calls whose arguments are
//! plain numbers: it hands no memory to the kernel.
#![expect(unsafe_code, reason = "a system call by number, and the i386 entry, have no safe form")]

/// Makes a system call with up to six numbers and gives what it answers.
pub(crate) fn syscall(number: i64, arguments: &[i64]) -> std::io::Result<i64> {
    let words = six(arguments);
    // SAFETY: the callers of this test program pass small numbers; one that the kernel takes for an address fails with
    // EFAULT, since nothing is mapped below 64 KiB (vm.mmap_min_addr).
    let answer = unsafe { libc::syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]) };
    if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
}

/// Makes a system call through the i386 entry, whose numbers a filter sees under AUDIT_ARCH_I386. Five numbers at most.
#[cfg(target_arch = "x86_64")]
pub(super) fn syscall32(number: i64, arguments: &[i64]) -> std::io::Result<()> {
    let words = six(arguments);
    let mut answer = number;
    // SAFETY: the entry changes rax (and r8-r11 on kernels before 4.20) and nothing else; rbx, which belongs to the
    // compiler, is exchanged and put back. Arguments are small numbers, as above.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) words[0] => _,
            inout("rax") answer,
            in("rcx") words[1],
            in("rdx") words[2],
            in("rsi") words[3],
            in("rdi") words[4],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // The answer has 32 bits, of which -4095..-1 are errors.
    let answer = (answer << 32) >> 32;
    if (-4095..0).contains(&answer) {
        Err(std::io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EINVAL)))
    } else {
        Ok(())
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn syscall32(_: i64, _: &[i64]) -> std::io::Result<()> {
    Err(std::io::Error::from_raw_os_error(libc::ENOSYS))
}

fn six(arguments: &[i64]) -> [i64; 6] {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    all
}
