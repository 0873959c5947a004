//! One handle over cgroup v1, hybrid and v2 hierarchies.
