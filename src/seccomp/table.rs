//! The kernel's system call numbers by name, for each ABI that a filter can be compiled for. Decides nothing.
//!
//! Taken from the kernel's own tables (arch/*/syscall*.tbl, scripts/syscall.tbl) as of Linux 7.0. Names are the kernel's
//! `__NR_` names, which are also the names of OCI profiles. Everything a look-up needs is laid out by the compiler into
//! read-only data without a pointer in it: nothing is built, relocated or touched at start.

/// How many system calls are known by name.
pub(super) const COUNT: usize = ROWS.len();

/// How many ABIs have a column.
const COLUMNS: usize = 6;

/// Marks a system call that an ABI does not have.
const NO: u16 = u16::MAX;

/// Numbers are below this in every ABI, but for [`ARM_PRIVATE`].
pub(super) const SLOTS: usize = 1024;

/// Slots from here on stand for the private calls of 32-bit ARM, whose numbers start at [`ARM_PRIVATE`]
/// (arch/arm/include/uapi/asm/unistd.h, `__ARM_NR_BASE`). No table has come near this many ordinary calls.
pub(super) const FIRST_PRIVATE_SLOT: usize = 0x3f0;

/// The number of the first private call of 32-bit ARM.
pub(super) const ARM_PRIVATE: u32 = 0x0f_0000;

/// A system call's place in the table, whatever its number in an ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row(u16);

impl Row {
    /// Gives every row, in the order of the names.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..).take(COUNT).map(Self)
    }

    /// Finds a system call by its name.
    pub(super) fn find(name: &str) -> Option<Self> {
        // Two names for one call, which only 32-bit ARM has.
        let name = if name == "arm_sync_file_range" { "sync_file_range2" } else { name };
        let mut bucket = bucket_of(name.as_bytes());
        loop {
            let row = BUCKETS[bucket];
            if row == NO {
                return None;
            }
            if name_of(usize::from(row)) == name.as_bytes() {
                return Some(Self(row));
            }
            bucket = (bucket + 1) % BUCKET_COUNT;
        }
    }

    /// Gives the name.
    pub(super) fn name(self) -> &'static str {
        str::from_utf8(name_of(self.index())).unwrap_or_default()
    }

    /// Gives the row's index, below [`COUNT`].
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Gives the call's slot in a column, below [`SLOTS`]; see [`number_of_slot`].
    pub(super) fn slot(self, column: usize) -> Option<usize> {
        Some(NUMBERS[self.index()][column]).filter(|number| *number != NO).map(usize::from)
    }
}

/// Gives the number that a slot stands for. Slots are in the order of the numbers.
pub(super) fn number_of_slot(slot: usize) -> u32 {
    let (base, offset) = if slot < FIRST_PRIVATE_SLOT { (0, slot) } else { (ARM_PRIVATE, slot - FIRST_PRIVATE_SLOT) };
    base + u32::try_from(offset).expect("slots are few")
}

// The constants below turn ROWS into three flat arrays. They exist only while compiling.

const NAMES_LENGTH: usize = {
    let mut length = 0;
    let mut row = 0;
    while row < COUNT {
        length += ROWS[row].0.len();
        row += 1;
    }
    length
};

/// All names, one after the other.
static NAMES: [u8; NAMES_LENGTH] = {
    let mut names = [0; NAMES_LENGTH];
    let mut at = 0;
    let mut row = 0;
    while row < COUNT {
        let name = ROWS[row].0.as_bytes();
        let mut letter = 0;
        while letter < name.len() {
            names[at] = name[letter];
            at += 1;
            letter += 1;
        }
        row += 1;
    }
    names
};

/// Where each row's name starts in [`NAMES`]; the last one is the end.
#[expect(clippy::cast_possible_truncation, reason = "no conversion that can fail is const; all names are 6 kB")]
static STARTS: [u16; COUNT + 1] = {
    let mut starts = [0; COUNT + 1];
    let mut at = 0;
    let mut row = 0;
    while row < COUNT {
        starts[row] = at as u16;
        at += ROWS[row].0.len();
        row += 1;
    }
    starts[COUNT] = at as u16;
    starts
};

static NUMBERS: [[u16; COLUMNS]; COUNT] = {
    let mut numbers = [[NO; COLUMNS]; COUNT];
    let mut row = 0;
    while row < COUNT {
        numbers[row] = ROWS[row].1;
        row += 1;
    }
    numbers
};

const BUCKET_COUNT: usize = 2048;

/// A hash table of rows with linear probing, a quarter full.
#[expect(clippy::cast_possible_truncation, reason = "no conversion that can fail is const; there are 500 rows")]
static BUCKETS: [u16; BUCKET_COUNT] = {
    let mut buckets = [NO; BUCKET_COUNT];
    let mut row = 0;
    while row < COUNT {
        let mut bucket = bucket_of(ROWS[row].0.as_bytes());
        while buckets[bucket] != NO {
            bucket = (bucket + 1) % BUCKET_COUNT;
        }
        buckets[bucket] = row as u16;
        row += 1;
    }
    buckets
};

/// Hashes a name as FNV-1a does.
const fn bucket_of(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    // The low bits of a short name's hash depend on its last letters alone.
    ((hash ^ (hash >> 16)) as usize) % BUCKET_COUNT
}

fn name_of(row: usize) -> &'static [u8] {
    &NAMES[usize::from(STARTS[row])..usize::from(STARTS[row + 1])]
}

/// Name, then the slot in x86_64, i386, x32 (without its bit 30), aarch64, arm and riscv64.
const ROWS: [(&str, [u16; COLUMNS]); 487] = [
    ("_llseek", [NO, 140, NO, NO, 140, NO]),
    ("_newselect", [NO, 142, NO, NO, 142, NO]),
    ("_sysctl", [156, 149, NO, NO, 149, NO]),
    ("accept", [43, NO, 43, 202, 285, 202]),
    ("accept4", [288, 364, 288, 242, 366, 242]),
    ("access", [21, 33, 21, NO, 33, NO]),
    ("acct", [163, 51, 163, 89, 51, 89]),
    ("add_key", [248, 286, 248, 217, 309, 217]),
    ("adjtimex", [159, 124, 159, 171, 124, 171]),
    ("afs_syscall", [183, 137, 183, NO, NO, NO]),
    ("alarm", [37, 27, 37, NO, NO, NO]),
    ("arch_prctl", [158, 384, 158, NO, NO, NO]),
    ("arm_fadvise64_64", [NO, NO, NO, NO, 270, NO]),
    ("bdflush", [NO, 134, NO, NO, 134, NO]),
    ("bind", [49, 361, 49, 200, 282, 200]),
    ("bpf", [321, 357, 321, 280, 386, 280]),
    ("break", [NO, 17, NO, NO, NO, NO]),
    ("breakpoint", [NO, NO, NO, NO, 1009, NO]),
    ("brk", [12, 45, 12, 214, 45, 214]),
    ("cacheflush", [NO, NO, NO, NO, 1010, NO]),
    ("cachestat", [451, 451, 451, 451, 451, 451]),
    ("capget", [125, 184, 125, 90, 184, 90]),
    ("capset", [126, 185, 126, 91, 185, 91]),
    ("chdir", [80, 12, 80, 49, 12, 49]),
    ("chmod", [90, 15, 90, NO, 15, NO]),
    ("chown", [92, 182, 92, NO, 182, NO]),
    ("chown32", [NO, 212, NO, NO, 212, NO]),
    ("chroot", [161, 61, 161, 51, 61, 51]),
    ("clock_adjtime", [305, 343, 305, 266, 372, 266]),
    ("clock_adjtime64", [NO, 405, NO, NO, 405, NO]),
    ("clock_getres", [229, 266, 229, 114, 264, 114]),
    ("clock_getres_time64", [NO, 406, NO, NO, 406, NO]),
    ("clock_gettime", [228, 265, 228, 113, 263, 113]),
    ("clock_gettime64", [NO, 403, NO, NO, 403, NO]),
    ("clock_nanosleep", [230, 267, 230, 115, 265, 115]),
    ("clock_nanosleep_time64", [NO, 407, NO, NO, 407, NO]),
    ("clock_settime", [227, 264, 227, 112, 262, 112]),
    ("clock_settime64", [NO, 404, NO, NO, 404, NO]),
    ("clone", [56, 120, 56, 220, 120, 220]),
    ("clone3", [435, 435, 435, 435, 435, 435]),
    ("close", [3, 6, 3, 57, 6, 57]),
    ("close_range", [436, 436, 436, 436, 436, 436]),
    ("connect", [42, 362, 42, 203, 283, 203]),
    ("copy_file_range", [326, 377, 326, 285, 391, 285]),
    ("creat", [85, 8, 85, NO, 8, NO]),
    ("create_module", [174, 127, NO, NO, NO, NO]),
    ("delete_module", [176, 129, 176, 106, 129, 106]),
    ("dup", [32, 41, 32, 23, 41, 23]),
    ("dup2", [33, 63, 33, NO, 63, NO]),
    ("dup3", [292, 330, 292, 24, 358, 24]),
    ("epoll_create", [213, 254, 213, NO, 250, NO]),
    ("epoll_create1", [291, 329, 291, 20, 357, 20]),
    ("epoll_ctl", [233, 255, 233, 21, 251, 21]),
    ("epoll_ctl_old", [214, NO, NO, NO, NO, NO]),
    ("epoll_pwait", [281, 319, 281, 22, 346, 22]),
    ("epoll_pwait2", [441, 441, 441, 441, 441, 441]),
    ("epoll_wait", [232, 256, 232, NO, 252, NO]),
    ("epoll_wait_old", [215, NO, NO, NO, NO, NO]),
    ("eventfd", [284, 323, 284, NO, 351, NO]),
    ("eventfd2", [290, 328, 290, 19, 356, 19]),
    ("execve", [59, 11, 520, 221, 11, 221]),
    ("execveat", [322, 358, 545, 281, 387, 281]),
    ("exit", [60, 1, 60, 93, 1, 93]),
    ("exit_group", [231, 252, 231, 94, 248, 94]),
    ("faccessat", [269, 307, 269, 48, 334, 48]),
    ("faccessat2", [439, 439, 439, 439, 439, 439]),
    ("fadvise64", [221, 250, 221, 223, NO, 223]),
    ("fadvise64_64", [NO, 272, NO, NO, NO, NO]),
    ("fallocate", [285, 324, 285, 47, 352, 47]),
    ("fanotify_init", [300, 338, 300, 262, 367, 262]),
    ("fanotify_mark", [301, 339, 301, 263, 368, 263]),
    ("fchdir", [81, 133, 81, 50, 133, 50]),
    ("fchmod", [91, 94, 91, 52, 94, 52]),
    ("fchmodat", [268, 306, 268, 53, 333, 53]),
    ("fchmodat2", [452, 452, 452, 452, 452, 452]),
    ("fchown", [93, 95, 93, 55, 95, 55]),
    ("fchown32", [NO, 207, NO, NO, 207, NO]),
    ("fchownat", [260, 298, 260, 54, 325, 54]),
    ("fcntl", [72, 55, 72, 25, 55, 25]),
    ("fcntl64", [NO, 221, NO, NO, 221, NO]),
    ("fdatasync", [75, 148, 75, 83, 148, 83]),
    ("fgetxattr", [193, 231, 193, 10, 231, 10]),
    ("file_getattr", [468, 468, 468, 468, 468, 468]),
    ("file_setattr", [469, 469, 469, 469, 469, 469]),
    ("finit_module", [313, 350, 313, 273, 379, 273]),
    ("flistxattr", [196, 234, 196, 13, 234, 13]),
    ("flock", [73, 143, 73, 32, 143, 32]),
    ("fork", [57, 2, 57, NO, 2, NO]),
    ("fremovexattr", [199, 237, 199, 16, 237, 16]),
    ("fsconfig", [431, 431, 431, 431, 431, 431]),
    ("fsetxattr", [190, 228, 190, 7, 228, 7]),
    ("fsmount", [432, 432, 432, 432, 432, 432]),
    ("fsopen", [430, 430, 430, 430, 430, 430]),
    ("fspick", [433, 433, 433, 433, 433, 433]),
    ("fstat", [5, 108, 5, 80, 108, 80]),
    ("fstat64", [NO, 197, NO, NO, 197, NO]),
    ("fstatat64", [NO, 300, NO, NO, 327, NO]),
    ("fstatfs", [138, 100, 138, 44, 100, 44]),
    ("fstatfs64", [NO, 269, NO, NO, 267, NO]),
    ("fsync", [74, 118, 74, 82, 118, 82]),
    ("ftime", [NO, 35, NO, NO, NO, NO]),
    ("ftruncate", [77, 93, 77, 46, 93, 46]),
    ("ftruncate64", [NO, 194, NO, NO, 194, NO]),
    ("futex", [202, 240, 202, 98, 240, 98]),
    ("futex_requeue", [456, 456, 456, 456, 456, 456]),
    ("futex_time64", [NO, 422, NO, NO, 422, NO]),
    ("futex_wait", [455, 455, 455, 455, 455, 455]),
    ("futex_waitv", [449, 449, 449, 449, 449, 449]),
    ("futex_wake", [454, 454, 454, 454, 454, 454]),
    ("futimesat", [261, 299, 261, NO, 326, NO]),
    ("get_kernel_syms", [177, 130, NO, NO, NO, NO]),
    ("get_mempolicy", [239, 275, 239, 236, 320, 236]),
    ("get_robust_list", [274, 312, 531, 100, 339, 100]),
    ("get_thread_area", [211, 244, NO, NO, NO, NO]),
    ("get_tls", [NO, NO, NO, NO, 1014, NO]),
    ("getcpu", [309, 318, 309, 168, 345, 168]),
    ("getcwd", [79, 183, 79, 17, 183, 17]),
    ("getdents", [78, 141, 78, NO, 141, NO]),
    ("getdents64", [217, 220, 217, 61, 217, 61]),
    ("getegid", [108, 50, 108, 177, 50, 177]),
    ("getegid32", [NO, 202, NO, NO, 202, NO]),
    ("geteuid", [107, 49, 107, 175, 49, 175]),
    ("geteuid32", [NO, 201, NO, NO, 201, NO]),
    ("getgid", [104, 47, 104, 176, 47, 176]),
    ("getgid32", [NO, 200, NO, NO, 200, NO]),
    ("getgroups", [115, 80, 115, 158, 80, 158]),
    ("getgroups32", [NO, 205, NO, NO, 205, NO]),
    ("getitimer", [36, 105, 36, 102, 105, 102]),
    ("getpeername", [52, 368, 52, 205, 287, 205]),
    ("getpgid", [121, 132, 121, 155, 132, 155]),
    ("getpgrp", [111, 65, 111, NO, 65, NO]),
    ("getpid", [39, 20, 39, 172, 20, 172]),
    ("getpmsg", [181, 188, 181, NO, NO, NO]),
    ("getppid", [110, 64, 110, 173, 64, 173]),
    ("getpriority", [140, 96, 140, 141, 96, 141]),
    ("getrandom", [318, 355, 318, 278, 384, 278]),
    ("getresgid", [120, 171, 120, 150, 171, 150]),
    ("getresgid32", [NO, 211, NO, NO, 211, NO]),
    ("getresuid", [118, 165, 118, 148, 165, 148]),
    ("getresuid32", [NO, 209, NO, NO, 209, NO]),
    ("getrlimit", [97, 76, 97, 163, NO, 163]),
    ("getrusage", [98, 77, 98, 165, 77, 165]),
    ("getsid", [124, 147, 124, 156, 147, 156]),
    ("getsockname", [51, 367, 51, 204, 286, 204]),
    ("getsockopt", [55, 365, 542, 209, 295, 209]),
    ("gettid", [186, 224, 186, 178, 224, 178]),
    ("gettimeofday", [96, 78, 96, 169, 78, 169]),
    ("getuid", [102, 24, 102, 174, 24, 174]),
    ("getuid32", [NO, 199, NO, NO, 199, NO]),
    ("getxattr", [191, 229, 191, 8, 229, 8]),
    ("getxattrat", [464, 464, 464, 464, 464, 464]),
    ("gtty", [NO, 32, NO, NO, NO, NO]),
    ("idle", [NO, 112, NO, NO, NO, NO]),
    ("init_module", [175, 128, 175, 105, 128, 105]),
    ("inotify_add_watch", [254, 292, 254, 27, 317, 27]),
    ("inotify_init", [253, 291, 253, NO, 316, NO]),
    ("inotify_init1", [294, 332, 294, 26, 360, 26]),
    ("inotify_rm_watch", [255, 293, 255, 28, 318, 28]),
    ("io_cancel", [210, 249, 210, 3, 247, 3]),
    ("io_destroy", [207, 246, 207, 1, 244, 1]),
    ("io_getevents", [208, 247, 208, 4, 245, 4]),
    ("io_pgetevents", [333, 385, 333, 292, 399, 292]),
    ("io_pgetevents_time64", [NO, 416, NO, NO, 416, NO]),
    ("io_setup", [206, 245, 543, 0, 243, 0]),
    ("io_submit", [209, 248, 544, 2, 246, 2]),
    ("io_uring_enter", [426, 426, 426, 426, 426, 426]),
    ("io_uring_register", [427, 427, 427, 427, 427, 427]),
    ("io_uring_setup", [425, 425, 425, 425, 425, 425]),
    ("ioctl", [16, 54, 514, 29, 54, 29]),
    ("ioperm", [173, 101, 173, NO, NO, NO]),
    ("iopl", [172, 110, 172, NO, NO, NO]),
    ("ioprio_get", [252, 290, 252, 31, 315, 31]),
    ("ioprio_set", [251, 289, 251, 30, 314, 30]),
    ("ipc", [NO, 117, NO, NO, NO, NO]),
    ("kcmp", [312, 349, 312, 272, 378, 272]),
    ("kexec_file_load", [320, NO, 320, 294, 401, 294]),
    ("kexec_load", [246, 283, 528, 104, 347, 104]),
    ("keyctl", [250, 288, 250, 219, 311, 219]),
    ("kill", [62, 37, 62, 129, 37, 129]),
    ("landlock_add_rule", [445, 445, 445, 445, 445, 445]),
    ("landlock_create_ruleset", [444, 444, 444, 444, 444, 444]),
    ("landlock_restrict_self", [446, 446, 446, 446, 446, 446]),
    ("lchown", [94, 16, 94, NO, 16, NO]),
    ("lchown32", [NO, 198, NO, NO, 198, NO]),
    ("lgetxattr", [192, 230, 192, 9, 230, 9]),
    ("link", [86, 9, 86, NO, 9, NO]),
    ("linkat", [265, 303, 265, 37, 330, 37]),
    ("listen", [50, 363, 50, 201, 284, 201]),
    ("listmount", [458, 458, 458, 458, 458, 458]),
    ("listns", [470, 470, 470, 470, 470, 470]),
    ("listxattr", [194, 232, 194, 11, 232, 11]),
    ("listxattrat", [465, 465, 465, 465, 465, 465]),
    ("llistxattr", [195, 233, 195, 12, 233, 12]),
    ("lock", [NO, 53, NO, NO, NO, NO]),
    ("lookup_dcookie", [212, 253, 212, 18, 249, 18]),
    ("lremovexattr", [198, 236, 198, 15, 236, 15]),
    ("lseek", [8, 19, 8, 62, 19, 62]),
    ("lsetxattr", [189, 227, 189, 6, 227, 6]),
    ("lsm_get_self_attr", [459, 459, 459, 459, 459, 459]),
    ("lsm_list_modules", [461, 461, 461, 461, 461, 461]),
    ("lsm_set_self_attr", [460, 460, 460, 460, 460, 460]),
    ("lstat", [6, 107, 6, NO, 107, NO]),
    ("lstat64", [NO, 196, NO, NO, 196, NO]),
    ("madvise", [28, 219, 28, 233, 220, 233]),
    ("map_shadow_stack", [453, 453, 453, 453, 453, 453]),
    ("mbind", [237, 274, 237, 235, 319, 235]),
    ("membarrier", [324, 375, 324, 283, 389, 283]),
    ("memfd_create", [319, 356, 319, 279, 385, 279]),
    ("memfd_secret", [447, 447, 447, 447, NO, 447]),
    ("migrate_pages", [256, 294, 256, 238, 400, 238]),
    ("mincore", [27, 218, 27, 232, 219, 232]),
    ("mkdir", [83, 39, 83, NO, 39, NO]),
    ("mkdirat", [258, 296, 258, 34, 323, 34]),
    ("mknod", [133, 14, 133, NO, 14, NO]),
    ("mknodat", [259, 297, 259, 33, 324, 33]),
    ("mlock", [149, 150, 149, 228, 150, 228]),
    ("mlock2", [325, 376, 325, 284, 390, 284]),
    ("mlockall", [151, 152, 151, 230, 152, 230]),
    ("mmap", [9, 90, 9, 222, NO, 222]),
    ("mmap2", [NO, 192, NO, NO, 192, NO]),
    ("modify_ldt", [154, 123, 154, NO, NO, NO]),
    ("mount", [165, 21, 165, 40, 21, 40]),
    ("mount_setattr", [442, 442, 442, 442, 442, 442]),
    ("move_mount", [429, 429, 429, 429, 429, 429]),
    ("move_pages", [279, 317, 533, 239, 344, 239]),
    ("mprotect", [10, 125, 10, 226, 125, 226]),
    ("mpx", [NO, 56, NO, NO, NO, NO]),
    ("mq_getsetattr", [245, 282, 245, 185, 279, 185]),
    ("mq_notify", [244, 281, 527, 184, 278, 184]),
    ("mq_open", [240, 277, 240, 180, 274, 180]),
    ("mq_timedreceive", [243, 280, 243, 183, 277, 183]),
    ("mq_timedreceive_time64", [NO, 419, NO, NO, 419, NO]),
    ("mq_timedsend", [242, 279, 242, 182, 276, 182]),
    ("mq_timedsend_time64", [NO, 418, NO, NO, 418, NO]),
    ("mq_unlink", [241, 278, 241, 181, 275, 181]),
    ("mremap", [25, 163, 25, 216, 163, 216]),
    ("mseal", [462, 462, 462, 462, 462, 462]),
    ("msgctl", [71, 402, 71, 187, 304, 187]),
    ("msgget", [68, 399, 68, 186, 303, 186]),
    ("msgrcv", [70, 401, 70, 188, 302, 188]),
    ("msgsnd", [69, 400, 69, 189, 301, 189]),
    ("msync", [26, 144, 26, 227, 144, 227]),
    ("munlock", [150, 151, 150, 229, 151, 229]),
    ("munlockall", [152, 153, 152, 231, 153, 231]),
    ("munmap", [11, 91, 11, 215, 91, 215]),
    ("name_to_handle_at", [303, 341, 303, 264, 370, 264]),
    ("nanosleep", [35, 162, 35, 101, 162, 101]),
    ("newfstatat", [262, NO, 262, 79, NO, 79]),
    ("nfsservctl", [180, 169, NO, 42, 169, 42]),
    ("nice", [NO, 34, NO, NO, 34, NO]),
    ("oldfstat", [NO, 28, NO, NO, NO, NO]),
    ("oldlstat", [NO, 84, NO, NO, NO, NO]),
    ("oldolduname", [NO, 59, NO, NO, NO, NO]),
    ("oldstat", [NO, 18, NO, NO, NO, NO]),
    ("olduname", [NO, 109, NO, NO, NO, NO]),
    ("open", [2, 5, 2, NO, 5, NO]),
    ("open_by_handle_at", [304, 342, 304, 265, 371, 265]),
    ("open_tree", [428, 428, 428, 428, 428, 428]),
    ("open_tree_attr", [467, 467, 467, 467, 467, 467]),
    ("openat", [257, 295, 257, 56, 322, 56]),
    ("openat2", [437, 437, 437, 437, 437, 437]),
    ("pause", [34, 29, 34, NO, 29, NO]),
    ("pciconfig_iobase", [NO, NO, NO, NO, 271, NO]),
    ("pciconfig_read", [NO, NO, NO, NO, 272, NO]),
    ("pciconfig_write", [NO, NO, NO, NO, 273, NO]),
    ("perf_event_open", [298, 336, 298, 241, 364, 241]),
    ("personality", [135, 136, 135, 92, 136, 92]),
    ("pidfd_getfd", [438, 438, 438, 438, 438, 438]),
    ("pidfd_open", [434, 434, 434, 434, 434, 434]),
    ("pidfd_send_signal", [424, 424, 424, 424, 424, 424]),
    ("pipe", [22, 42, 22, NO, 42, NO]),
    ("pipe2", [293, 331, 293, 59, 359, 59]),
    ("pivot_root", [155, 217, 155, 41, 218, 41]),
    ("pkey_alloc", [330, 381, 330, 289, 395, 289]),
    ("pkey_free", [331, 382, 331, 290, 396, 290]),
    ("pkey_mprotect", [329, 380, 329, 288, 394, 288]),
    ("poll", [7, 168, 7, NO, 168, NO]),
    ("ppoll", [271, 309, 271, 73, 336, 73]),
    ("ppoll_time64", [NO, 414, NO, NO, 414, NO]),
    ("prctl", [157, 172, 157, 167, 172, 167]),
    ("pread64", [17, 180, 17, 67, 180, 67]),
    ("preadv", [295, 333, 534, 69, 361, 69]),
    ("preadv2", [327, 378, 546, 286, 392, 286]),
    ("prlimit64", [302, 340, 302, 261, 369, 261]),
    ("process_madvise", [440, 440, 440, 440, 440, 440]),
    ("process_mrelease", [448, 448, 448, 448, 448, 448]),
    ("process_vm_readv", [310, 347, 539, 270, 376, 270]),
    ("process_vm_writev", [311, 348, 540, 271, 377, 271]),
    ("prof", [NO, 44, NO, NO, NO, NO]),
    ("profil", [NO, 98, NO, NO, NO, NO]),
    ("pselect6", [270, 308, 270, 72, 335, 72]),
    ("pselect6_time64", [NO, 413, NO, NO, 413, NO]),
    ("ptrace", [101, 26, 521, 117, 26, 117]),
    ("putpmsg", [182, 189, 182, NO, NO, NO]),
    ("pwrite64", [18, 181, 18, 68, 181, 68]),
    ("pwritev", [296, 334, 535, 70, 362, 70]),
    ("pwritev2", [328, 379, 547, 287, 393, 287]),
    ("query_module", [178, 167, NO, NO, NO, NO]),
    ("quotactl", [179, 131, 179, 60, 131, 60]),
    ("quotactl_fd", [443, 443, 443, 443, 443, 443]),
    ("read", [0, 3, 0, 63, 3, 63]),
    ("readahead", [187, 225, 187, 213, 225, 213]),
    ("readdir", [NO, 89, NO, NO, NO, NO]),
    ("readlink", [89, 85, 89, NO, 85, NO]),
    ("readlinkat", [267, 305, 267, 78, 332, 78]),
    ("readv", [19, 145, 515, 65, 145, 65]),
    ("reboot", [169, 88, 169, 142, 88, 142]),
    ("recv", [NO, NO, NO, NO, 291, NO]),
    ("recvfrom", [45, 371, 517, 207, 292, 207]),
    ("recvmmsg", [299, 337, 537, 243, 365, 243]),
    ("recvmmsg_time64", [NO, 417, NO, NO, 417, NO]),
    ("recvmsg", [47, 372, 519, 212, 297, 212]),
    ("remap_file_pages", [216, 257, 216, 234, 253, 234]),
    ("removexattr", [197, 235, 197, 14, 235, 14]),
    ("removexattrat", [466, 466, 466, 466, 466, 466]),
    ("rename", [82, 38, 82, NO, 38, NO]),
    ("renameat", [264, 302, 264, 38, 329, NO]),
    ("renameat2", [316, 353, 316, 276, 382, 276]),
    ("request_key", [249, 287, 249, 218, 310, 218]),
    ("restart_syscall", [219, 0, 219, 128, 0, 128]),
    ("riscv_flush_icache", [NO, NO, NO, NO, NO, 259]),
    ("riscv_hwprobe", [NO, NO, NO, NO, NO, 258]),
    ("rmdir", [84, 40, 84, NO, 40, NO]),
    ("rseq", [334, 386, 334, 293, 398, 293]),
    ("rseq_slice_yield", [471, 471, 471, 471, 471, 471]),
    ("rt_sigaction", [13, 174, 512, 134, 174, 134]),
    ("rt_sigpending", [127, 176, 522, 136, 176, 136]),
    ("rt_sigprocmask", [14, 175, 14, 135, 175, 135]),
    ("rt_sigqueueinfo", [129, 178, 524, 138, 178, 138]),
    ("rt_sigreturn", [15, 173, 513, 139, 173, 139]),
    ("rt_sigsuspend", [130, 179, 130, 133, 179, 133]),
    ("rt_sigtimedwait", [128, 177, 523, 137, 177, 137]),
    ("rt_sigtimedwait_time64", [NO, 421, NO, NO, 421, NO]),
    ("rt_tgsigqueueinfo", [297, 335, 536, 240, 363, 240]),
    ("sched_get_priority_max", [146, 159, 146, 125, 159, 125]),
    ("sched_get_priority_min", [147, 160, 147, 126, 160, 126]),
    ("sched_getaffinity", [204, 242, 204, 123, 242, 123]),
    ("sched_getattr", [315, 352, 315, 275, 381, 275]),
    ("sched_getparam", [143, 155, 143, 121, 155, 121]),
    ("sched_getscheduler", [145, 157, 145, 120, 157, 120]),
    ("sched_rr_get_interval", [148, 161, 148, 127, 161, 127]),
    ("sched_rr_get_interval_time64", [NO, 423, NO, NO, 423, NO]),
    ("sched_setaffinity", [203, 241, 203, 122, 241, 122]),
    ("sched_setattr", [314, 351, 314, 274, 380, 274]),
    ("sched_setparam", [142, 154, 142, 118, 154, 118]),
    ("sched_setscheduler", [144, 156, 144, 119, 156, 119]),
    ("sched_yield", [24, 158, 24, 124, 158, 124]),
    ("seccomp", [317, 354, 317, 277, 383, 277]),
    ("security", [185, NO, 185, NO, NO, NO]),
    ("select", [23, 82, 23, NO, NO, NO]),
    ("semctl", [66, 394, 66, 191, 300, 191]),
    ("semget", [64, 393, 64, 190, 299, 190]),
    ("semop", [65, NO, 65, 193, 298, 193]),
    ("semtimedop", [220, NO, 220, 192, 312, 192]),
    ("semtimedop_time64", [NO, 420, NO, NO, 420, NO]),
    ("send", [NO, NO, NO, NO, 289, NO]),
    ("sendfile", [40, 187, 40, 71, 187, 71]),
    ("sendfile64", [NO, 239, NO, NO, 239, NO]),
    ("sendmmsg", [307, 345, 538, 269, 374, 269]),
    ("sendmsg", [46, 370, 518, 211, 296, 211]),
    ("sendto", [44, 369, 44, 206, 290, 206]),
    ("set_mempolicy", [238, 276, 238, 237, 321, 237]),
    ("set_mempolicy_home_node", [450, 450, 450, 450, 450, 450]),
    ("set_robust_list", [273, 311, 530, 99, 338, 99]),
    ("set_thread_area", [205, 243, NO, NO, NO, NO]),
    ("set_tid_address", [218, 258, 218, 96, 256, 96]),
    ("set_tls", [NO, NO, NO, NO, 1013, NO]),
    ("setdomainname", [171, 121, 171, 162, 121, 162]),
    ("setfsgid", [123, 139, 123, 152, 139, 152]),
    ("setfsgid32", [NO, 216, NO, NO, 216, NO]),
    ("setfsuid", [122, 138, 122, 151, 138, 151]),
    ("setfsuid32", [NO, 215, NO, NO, 215, NO]),
    ("setgid", [106, 46, 106, 144, 46, 144]),
    ("setgid32", [NO, 214, NO, NO, 214, NO]),
    ("setgroups", [116, 81, 116, 159, 81, 159]),
    ("setgroups32", [NO, 206, NO, NO, 206, NO]),
    ("sethostname", [170, 74, 170, 161, 74, 161]),
    ("setitimer", [38, 104, 38, 103, 104, 103]),
    ("setns", [308, 346, 308, 268, 375, 268]),
    ("setpgid", [109, 57, 109, 154, 57, 154]),
    ("setpriority", [141, 97, 141, 140, 97, 140]),
    ("setregid", [114, 71, 114, 143, 71, 143]),
    ("setregid32", [NO, 204, NO, NO, 204, NO]),
    ("setresgid", [119, 170, 119, 149, 170, 149]),
    ("setresgid32", [NO, 210, NO, NO, 210, NO]),
    ("setresuid", [117, 164, 117, 147, 164, 147]),
    ("setresuid32", [NO, 208, NO, NO, 208, NO]),
    ("setreuid", [113, 70, 113, 145, 70, 145]),
    ("setreuid32", [NO, 203, NO, NO, 203, NO]),
    ("setrlimit", [160, 75, 160, 164, 75, 164]),
    ("setsid", [112, 66, 112, 157, 66, 157]),
    ("setsockopt", [54, 366, 541, 208, 294, 208]),
    ("settimeofday", [164, 79, 164, 170, 79, 170]),
    ("setuid", [105, 23, 105, 146, 23, 146]),
    ("setuid32", [NO, 213, NO, NO, 213, NO]),
    ("setxattr", [188, 226, 188, 5, 226, 5]),
    ("setxattrat", [463, 463, 463, 463, 463, 463]),
    ("sgetmask", [NO, 68, NO, NO, NO, NO]),
    ("shmat", [30, 397, 30, 196, 305, 196]),
    ("shmctl", [31, 396, 31, 195, 308, 195]),
    ("shmdt", [67, 398, 67, 197, 306, 197]),
    ("shmget", [29, 395, 29, 194, 307, 194]),
    ("shutdown", [48, 373, 48, 210, 293, 210]),
    ("sigaction", [NO, 67, NO, NO, 67, NO]),
    ("sigaltstack", [131, 186, 525, 132, 186, 132]),
    ("signal", [NO, 48, NO, NO, NO, NO]),
    ("signalfd", [282, 321, 282, NO, 349, NO]),
    ("signalfd4", [289, 327, 289, 74, 355, 74]),
    ("sigpending", [NO, 73, NO, NO, 73, NO]),
    ("sigprocmask", [NO, 126, NO, NO, 126, NO]),
    ("sigreturn", [NO, 119, NO, NO, 119, NO]),
    ("sigsuspend", [NO, 72, NO, NO, 72, NO]),
    ("socket", [41, 359, 41, 198, 281, 198]),
    ("socketcall", [NO, 102, NO, NO, NO, NO]),
    ("socketpair", [53, 360, 53, 199, 288, 199]),
    ("splice", [275, 313, 275, 76, 340, 76]),
    ("ssetmask", [NO, 69, NO, NO, NO, NO]),
    ("stat", [4, 106, 4, NO, 106, NO]),
    ("stat64", [NO, 195, NO, NO, 195, NO]),
    ("statfs", [137, 99, 137, 43, 99, 43]),
    ("statfs64", [NO, 268, NO, NO, 266, NO]),
    ("statmount", [457, 457, 457, 457, 457, 457]),
    ("statx", [332, 383, 332, 291, 397, 291]),
    ("stime", [NO, 25, NO, NO, NO, NO]),
    ("stty", [NO, 31, NO, NO, NO, NO]),
    ("swapoff", [168, 115, 168, 225, 115, 225]),
    ("swapon", [167, 87, 167, 224, 87, 224]),
    ("symlink", [88, 83, 88, NO, 83, NO]),
    ("symlinkat", [266, 304, 266, 36, 331, 36]),
    ("sync", [162, 36, 162, 81, 36, 81]),
    ("sync_file_range", [277, 314, 277, 84, NO, 84]),
    ("sync_file_range2", [NO, NO, NO, NO, 341, NO]),
    ("syncfs", [306, 344, 306, 267, 373, 267]),
    ("sysfs", [139, 135, 139, NO, 135, NO]),
    ("sysinfo", [99, 116, 99, 179, 116, 179]),
    ("syslog", [103, 103, 103, 116, 103, 116]),
    ("tee", [276, 315, 276, 77, 342, 77]),
    ("tgkill", [234, 270, 234, 131, 268, 131]),
    ("time", [201, 13, 201, NO, NO, NO]),
    ("timer_create", [222, 259, 526, 107, 257, 107]),
    ("timer_delete", [226, 263, 226, 111, 261, 111]),
    ("timer_getoverrun", [225, 262, 225, 109, 260, 109]),
    ("timer_gettime", [224, 261, 224, 108, 259, 108]),
    ("timer_gettime64", [NO, 408, NO, NO, 408, NO]),
    ("timer_settime", [223, 260, 223, 110, 258, 110]),
    ("timer_settime64", [NO, 409, NO, NO, 409, NO]),
    ("timerfd_create", [283, 322, 283, 85, 350, 85]),
    ("timerfd_gettime", [287, 326, 287, 87, 354, 87]),
    ("timerfd_gettime64", [NO, 410, NO, NO, 410, NO]),
    ("timerfd_settime", [286, 325, 286, 86, 353, 86]),
    ("timerfd_settime64", [NO, 411, NO, NO, 411, NO]),
    ("times", [100, 43, 100, 153, 43, 153]),
    ("tkill", [200, 238, 200, 130, 238, 130]),
    ("truncate", [76, 92, 76, 45, 92, 45]),
    ("truncate64", [NO, 193, NO, NO, 193, NO]),
    ("tuxcall", [184, NO, 184, NO, NO, NO]),
    ("ugetrlimit", [NO, 191, NO, NO, 191, NO]),
    ("ulimit", [NO, 58, NO, NO, NO, NO]),
    ("umask", [95, 60, 95, 166, 60, 166]),
    ("umount", [NO, 22, NO, NO, NO, NO]),
    ("umount2", [166, 52, 166, 39, 52, 39]),
    ("uname", [63, 122, 63, 160, 122, 160]),
    ("unlink", [87, 10, 87, NO, 10, NO]),
    ("unlinkat", [263, 301, 263, 35, 328, 35]),
    ("unshare", [272, 310, 272, 97, 337, 97]),
    ("uprobe", [336, NO, 336, NO, NO, NO]),
    ("uretprobe", [335, NO, 335, NO, NO, NO]),
    ("uselib", [134, 86, NO, NO, 86, NO]),
    ("userfaultfd", [323, 374, 323, 282, 388, 282]),
    ("usr26", [NO, NO, NO, NO, 1011, NO]),
    ("usr32", [NO, NO, NO, NO, 1012, NO]),
    ("ustat", [136, 62, 136, NO, 62, NO]),
    ("utime", [132, 30, 132, NO, NO, NO]),
    ("utimensat", [280, 320, 280, 88, 348, 88]),
    ("utimensat_time64", [NO, 412, NO, NO, 412, NO]),
    ("utimes", [235, 271, 235, NO, 269, NO]),
    ("vfork", [58, 190, 58, NO, 190, NO]),
    ("vhangup", [153, 111, 153, 58, 111, 58]),
    ("vm86", [NO, 166, NO, NO, NO, NO]),
    ("vm86old", [NO, 113, NO, NO, NO, NO]),
    ("vmsplice", [278, 316, 532, 75, 343, 75]),
    ("vserver", [236, 273, NO, NO, 313, NO]),
    ("wait4", [61, 114, 61, 260, 114, 260]),
    ("waitid", [247, 284, 529, 95, 280, 95]),
    ("waitpid", [NO, 7, NO, NO, NO, NO]),
    ("write", [1, 4, 1, 64, 4, 64]),
    ("writev", [20, 146, 516, 66, 146, 66]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        for row in Row::all() {
            assert_eq!(Row::find(row.name()), Some(row));
        }
        for name in ["", "reads", "rea", "READ", "read\0", "rea\u{e4}d", "no_such_call"] {
            assert_eq!(Row::find(name), None, "{name:?}");
        }
        assert_eq!(Row::find("arm_sync_file_range"), Row::find("sync_file_range2"));
    }

    #[test]
    fn a_number_is_one_call() {
        for column in 0..COLUMNS {
            let mut slots: Vec<_> = Row::all().filter_map(|row| row.slot(column)).collect();
            let count = slots.len();
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(slots.len(), count, "column {column}");
            assert!(slots.iter().all(|slot| *slot < SLOTS));
            // Only arm (column 4) has calls beyond the ordinary ones.
            assert!(column == 4 || slots.iter().all(|slot| *slot < FIRST_PRIVATE_SLOT), "column {column}");
        }
        assert_eq!(number_of_slot(Row::find("set_tls").unwrap().slot(4).unwrap()), 0x0f_0005);
    }

    /// The table against the headers of the machine that runs the tests, which may be older or newer.
    #[test]
    fn numbers_are_those_of_the_kernel_headers() {
        for (header, column, base) in
            [("unistd_64.h", 0, ""), ("unistd_32.h", 1, ""), ("unistd_x32.h", 2, "(__X32_SYSCALL_BIT + ")]
        {
            let path = format!("/usr/include/x86_64-linux-gnu/asm/{header}");
            let Ok(text) = std::fs::read_to_string(&path) else {
                #[expect(clippy::print_stderr, reason = "a check that can't run says so")]
                {
                    eprintln!("{path} is not here: its numbers are not compared");
                }
                continue;
            };
            let mut compared = 0;
            for line in text.lines() {
                let Some((name, number)) = line.strip_prefix("#define __NR_").and_then(|line| line.split_once(' '))
                else {
                    continue;
                };
                let number: usize = number.trim_start_matches(base).trim_end_matches(')').parse().unwrap();
                match Row::find(name) {
                    Some(row) => assert_eq!(row.slot(column), Some(number), "{name} in {header}"),
                    // Added to the kernel after the table was made.
                    None => assert!(number > 471, "{name} in {header}"),
                }
                compared += 1;
            }
            assert!(compared > 300, "{compared} in {header}");
        }
    }
}
