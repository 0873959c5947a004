//! POSIX extended regular expressions by regcomp(3) and regexec(3), for the verbs of crun that take one.
//!
//! They are the C library's, so that an expression means what it means to crun. Matches only; finds no groups.
#![expect(unsafe_code, reason = "the C library's functions take a structure that they fill themselves")]

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Regex(Box<libc::regex_t>);

impl Regex {
    /// Compiles an extended expression; `None` for one that is not well formed.
    pub fn new(expression: &CStr) -> Option<Self> {
        // Boxed before it is filled: nothing says that the structure may be moved afterwards.
        let mut compiled: Box<MaybeUninit<libc::regex_t>> = Box::new_uninit();
        // SAFETY: `compiled` is room for one regex_t, and the expression ends with a NUL; both outlive the call.
        let answer =
            unsafe { libc::regcomp(compiled.as_mut_ptr(), expression.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if answer != 0 {
            return None;
        }
        // SAFETY: regcomp succeeded, which fills the structure.
        Some(Self(unsafe { compiled.assume_init() }))
    }

    /// Says whether the expression is found anywhere in the text.
    pub fn is_match(&self, text: &CStr) -> bool {
        // SAFETY: the structure was filled by regcomp and is not freed before `self`; no groups are asked for.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: the structure was filled by regcomp, and nobody uses it after its owner's drop.
        unsafe { libc::regfree(&raw mut *self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_posix_extended_ones() {
        for (expression, text, expected) in [
            (c"^web[0-9]+$", c"web12", true),
            (c"^web[0-9]+$", c"web", false),
            (c"b", c"abc", true),
            (c"^(a|b){2}$", c"ab", true),
        ] {
            assert_eq!(Regex::new(expression).unwrap().is_match(text), expected, "{expression:?} {text:?}");
        }
        assert!(Regex::new(c"(").is_none());
    }
}
