//! The content-addressed store of unpacked layers, and the root file systems made of them.
