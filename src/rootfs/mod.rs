//! The root file system of a container: mounts, devices, masked paths, pivot.
