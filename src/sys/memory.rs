//! What a process that waits for long gives back: its program, its empty stack and its free heap.
//!
//! Whatever is given back here comes again by itself when it is touched: from the executable, which nobody can write to
//! while it runs (ETXTBSY, execve(2)), or as zeros where nothing was.
//!
//! The kernel maps what it has in its cache around each page that is touched, 64 KiB at a time, so a few calls after the text
//! was given back there is much of it again. So the last thing to be given back is the text, and the wait is the
//! next instruction: what is mapped while a process waits is the window around that.
#![expect(
    unsafe_code,
    reason = "madvise takes addresses, dl_iterate_phdr a callback, and a wait without text is no function"
)]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;

/// Left alone below the stack pointer: the frames of the calls that are being made here.
const STACK_MARGIN: usize = 16 << 10;

/// Waits as poll(2) does, for what may take long, and gives back before what this process does not need for that. Only for a
/// process with one thread.
pub fn wait_released(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    release_stack();
    // SAFETY: malloc_trim(3) takes no memory that is in use, and there is no other thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
    let mut program = Program::default();
    // SAFETY: the callback has the signature that is asked for, keeps nothing, and does not unwind; `program` outlives the
    // call.
    unsafe { libc::dl_iterate_phdr(Some(look_at), (&raw mut program).cast()) };
    let timeout = timeout.map(kernel_time);
    release_unwritten(program.relocated);
    release(program.constants);
    wait(fds, timeout.as_ref(), program.text)
}

/// A part of the address space, in whole pages.
#[derive(Clone, Copy, Default)]
struct Range {
    start: usize,
    end: usize,
}

impl Range {
    /// The pages that lie in between whole.
    fn of_pages_in(start: usize, end: usize) -> Self {
        let page = page_size();
        let start = start.next_multiple_of(page);
        Self { start, end: (end / page * page).max(start) }
    }
}

/// The parts of a program that are not written to while it runs.
#[derive(Default)]
struct Program {
    text: Range,
    constants: Range,
    /// What is written to by its start alone.
    relocated: Range,
}

/// Notes where the parts of an object are, the largest of each kind.
extern "C" fn look_at(object: *mut libc::dl_phdr_info, _size: usize, program: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr(3) hands in an object that is valid during the call.
    let object = unsafe { &*object };
    // SAFETY: the data that the caller has handed in, a Program that nobody else uses meanwhile.
    let program = unsafe { &mut *program.cast::<Program>() };
    for number in 0..object.dlpi_phnum {
        // SAFETY: the object has so many program headers: the address is that of one of them.
        let header = unsafe { object.dlpi_phdr.add(number.into()) };
        // SAFETY: program headers are not changed once the program runs.
        let header = unsafe { &*header };
        let start = usize::try_from(object.dlpi_addr + header.p_vaddr).unwrap_or(0);
        let end = start + usize::try_from(header.p_memsz).unwrap_or(0);
        let part = match (header.p_type, header.p_flags & (libc::PF_W | libc::PF_X)) {
            (libc::PT_LOAD, 0) => &mut program.constants,
            (libc::PT_LOAD, libc::PF_X) => &mut program.text,
            (libc::PT_GNU_RELRO, _) => &mut program.relocated,
            _ => continue,
        };
        let found = Range::of_pages_in(start, end);
        if found.end - found.start > part.end - part.start {
            *part = found;
        }
    }
    0
}

/// Gives back those pages of a private mapping that are still the file's (bit 61 of its entries in pagemap, proc(5)).
fn release_unwritten(range: Range) {
    const PRESENT_AND_OF_A_FILE: u64 = 1 << 63 | 1 << 61;
    let Ok(map) = File::open("/proc/self/pagemap") else { return };
    let page = page_size();
    let mut entries = [0; 4096];
    let places = (range.start..range.end).step_by(page);
    let first = range.start / page * size_of::<u64>();
    let wanted = (places.len() * size_of::<u64>()).min(entries.len());
    let Ok(()) = map.read_exact_at(&mut entries[..wanted], first as u64) else { return };
    for (place, entry) in places.zip(entries[..wanted].as_chunks().0) {
        if u64::from_ne_bytes(*entry) & PRESENT_AND_OF_A_FILE == PRESENT_AND_OF_A_FILE {
            release(Range { start: place, end: place + page });
        }
    }
}

/// Gives the text back and waits.
#[cfg(target_arch = "x86_64")]
fn wait(fds: &mut [PollFd<'_>], timeout: Option<&KernelTime>, text: Range) -> Result<usize, Errno> {
    let answer: i64;
    // SAFETY: madvise takes nothing away that does not come back by itself: the text, from the executable. ppoll writes to
    // the descriptors' results, and may to the time, which both outlive it; without a mask it changes none. The registers
    // that system calls change are named, and the stack is not used.
    unsafe {
        std::arch::asm!(
            "syscall",
            "mov eax, {poll}",
            "mov rdi, r12",
            "mov rsi, r13",
            "mov rdx, r14",
            "xor r10d, r10d",
            "mov r8d, 8",
            "syscall",
            poll = const libc::SYS_ppoll,
            inlateout("rax") libc::SYS_madvise => answer,
            inlateout("rdi") text.start => _,
            inlateout("rsi") text.end - text.start => _,
            inlateout("rdx") libc::MADV_DONTNEED as usize => _,
            in("r12") fds.as_mut_ptr(),
            in("r13") fds.len(),
            in("r14") timeout.map_or(std::ptr::null(), std::ptr::from_ref),
            lateout("r10") _,
            lateout("r8") _,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    to_result(answer)
}

/// Gives the text back and waits.
#[cfg(target_arch = "aarch64")]
fn wait(fds: &mut [PollFd<'_>], timeout: Option<&KernelTime>, text: Range) -> Result<usize, Errno> {
    let answer: i64;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "mov x8, {poll}",
            "mov x0, x9",
            "mov x1, x10",
            "mov x2, x11",
            "mov x3, 0",
            "mov x4, 8",
            "svc 0",
            poll = const libc::SYS_ppoll,
            inlateout("x8") libc::SYS_madvise => _,
            inlateout("x0") text.start => answer,
            inlateout("x1") text.end - text.start => _,
            inlateout("x2") libc::MADV_DONTNEED as usize => _,
            in("x9") fds.as_mut_ptr(),
            in("x10") fds.len(),
            in("x11") timeout.map_or(std::ptr::null(), std::ptr::from_ref),
            lateout("x3") _,
            lateout("x4") _,
            options(nostack),
        );
    }
    to_result(answer)
}

/// The kernel's form of a time, `struct __kernel_timespec`.
#[repr(C)]
struct KernelTime {
    seconds: i64,
    nanoseconds: i64,
}

fn kernel_time(time: &Timespec) -> KernelTime {
    KernelTime { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
}

fn to_result(answer: i64) -> Result<usize, Errno> {
    usize::try_from(answer).map_err(|_| Errno::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EIO)))
}

/// Gives back what is below the stack pointer, and was used once.
fn release_stack() {
    let here = 0_u8;
    let top = (&raw const here).addr().saturating_sub(STACK_MARGIN);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(line) = maps.lines().find(|line| line.ends_with("[stack]")) else { return };
    let start = line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok());
    if let Some(start) = start.filter(|start| *start < top) {
        release(Range::of_pages_in(start, top));
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf(3) takes and gives numbers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1 << 16)
}

/// Drops pages.
fn release(Range { start, end }: Range) {
    if start < end {
        // SAFETY: the callers name ranges that this process has, which hold nothing but what comes back by itself (constants,
        // from the file) or what nobody will read (the stack below what is in use).
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::PollFlags;

    use super::*;

    /// The stack that it looks at is not this thread's, and everything else comes back to whichever thread asks.
    #[test]
    fn a_process_goes_on() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut fds = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
        let moment = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let text = |number: u32| format!("{number} of {:?}", std::thread::current().id());
        let before = text(7);
        assert_eq!(wait_released(&mut fds, Some(&moment)), Ok(0));
        assert_eq!(text(7), before);
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(wait_released(&mut fds, None), Ok(1));
        assert_eq!(fds[0].revents(), PollFlags::IN);
        let wrong = Timespec { tv_sec: -1, tv_nsec: 0 };
        assert_eq!(wait_released(&mut fds, Some(&wrong)), Err(Errno::INVAL));
    }
}
