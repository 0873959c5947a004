//! What a process that stays gives back: pages of its program that it is not using, its empty stack and its free heap.
//!
//! Whatever is given back here comes again by itself when it is touched: from the executable, which nobody can write to
//! while it runs (ETXTBSY, execve(2)), or as zeros where nothing was.
#![expect(unsafe_code, reason = "madvise takes addresses, and dl_iterate_phdr a callback")]

use std::ffi::{c_int, c_void};

/// Left alone below the stack pointer: the frames of the calls that are being made here.
const STACK_MARGIN: usize = 64 << 10;

/// Gives back what this process does not need while it waits. Only for a process with one thread.
pub fn release_unused() {
    release_stack();
    // SAFETY: malloc_trim(3) takes no memory that is in use, and there is no other thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
    // Last: what runs comes again, in pieces of 64 KiB and more (fault-around).
    // SAFETY: the callback has the signature that is asked for, keeps nothing, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(release_program), std::ptr::null_mut()) };
}

/// Gives back the pages of one object's segments that are never written: text and constants.
extern "C" fn release_program(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr(3) hands in an object that is valid during the call.
    let object = unsafe { &*object };
    for number in 0..object.dlpi_phnum {
        // SAFETY: the object has so many program headers: the address is that of one of them.
        let header = unsafe { object.dlpi_phdr.add(number.into()) };
        // SAFETY: program headers are not changed once the program runs.
        let header = unsafe { &*header };
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = usize::try_from(object.dlpi_addr + header.p_vaddr).unwrap_or(0);
        let length = usize::try_from(header.p_memsz).unwrap_or(0);
        release(start, start + length);
    }
    0
}

/// Gives back what is below the stack pointer, and was used once.
fn release_stack() {
    let here = 0_u8;
    let top = (&raw const here).addr().saturating_sub(STACK_MARGIN);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some(line) = maps.lines().find(|line| line.ends_with("[stack]")) else { return };
    let start = line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok());
    if let Some(start) = start.filter(|start| *start < top) {
        release(start, top);
    }
}

/// Drops the pages that lie in a range whole.
fn release(start: usize, end: usize) {
    // SAFETY: sysconf(3) takes and gives numbers.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1 << 16);
    let (start, end) = (start.next_multiple_of(page), end / page * page);
    if start < end {
        // SAFETY: the callers name ranges that this process has, which hold nothing but what comes back by itself (text and
        // constants, from the file) or what nobody will read (the stack below what is in use).
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    /// The stack that it looks at is not this thread's, and everything else comes back to whichever thread asks.
    #[test]
    fn a_process_goes_on() {
        let text = |number: u32| format!("{number} of {:?}", std::thread::current().id());
        let before = text(7);
        super::release_unused();
        assert_eq!(text(7), before);
    }
}
