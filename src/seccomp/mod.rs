//! Compiles an OCI seccomp profile to classic BPF. Installs nothing.
