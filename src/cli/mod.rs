//! Words typed, words printed. No policy.
