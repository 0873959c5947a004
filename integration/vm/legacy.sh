#!/bin/sh
# What husk does with cgroups where systemd has the controllers on version 1 (the hybrid layout): run by contrib/vm-test,
# as root, in a machine booted with systemd.unified_cgroup_hierarchy=0.
# Usage: legacy.sh HUSK, an executable; busybox is the machine's own, static.
set -u
husk=$1
scratch=$(mktemp -d /tmp/husk-vm-XXXXXX)
runtime="$husk oci --root $scratch/state"
. "$(dirname "$0")/checks.sh"
trap '$runtime delete --force one; $runtime delete --force two; rm -rf "$scratch"' EXIT

mkdir -p "$scratch/rootfs/bin" "$scratch/rootfs/proc" "$scratch/rootfs/dev"
cp /bin/busybox "$scratch/rootfs/bin/"
config() { # CGROUPS_PATH
    cat <<JSON
{
  "ociVersion": "1.3.0",
  "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/busybox", "sleep", "10000"]},
  "root": {"path": "rootfs"},
  "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
  "linux": {
    "namespaces": [{"type": "pid"}, {"type": "mount"}],
    "cgroupsPath": "$1",
    "resources": {
      "memory": {"limit": 67108864},
      "cpu": {"shares": 512, "quota": 2468, "period": 200000, "cpus": "0"},
      "pids": {"limit": 17},
      "network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 3}]},
      "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
      "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    }
  }
}
JSON
}
at=/sys/fs/cgroup
value() { cat "$at/$1"; }
limits() { # CGROUP QUOTA
    for row in memory=memory.limit_in_bytes=67108864 cpu=cpu.shares=512 "cpu=cpu.cfs_quota_us=$2" cpu=cpu.cfs_period_us=200000 \
        pids=pids.max=17 cpuset=cpuset.cpus=0 net_cls=net_cls.classid=1048577 hugetlb=hugetlb.2MB.limit_in_bytes=4194304; do
        file=${row#*=}
        is "$1: ${file%=*}" "$(value "${row%%=*}/$1/${file%=*}")" "${file#*=}"
    done
    has "$1: net_prio" "$(value "net_prio/$1/net_prio.ifpriomap")" "lo 3"
    has "$1: devices" "$(value "devices/$1/devices.list" | tr '\n' ';')" "c 10:229 rw;"
    is "$1: devices are closed" "$(grep -c '^a' "$at/devices/$1/devices.list")" 0
}

echo "# $(systemctl --version | head -1), Linux $(uname -r), cgroup v1"
config :husk:one >"$scratch/config.json"
$runtime --systemd-cgroup create --bundle "$scratch" --pid-file "$scratch/pid" one
is "create with systemd" $? 0
$runtime start one
is "it is in its scope, in every hierarchy" \
    "$(sed 's/.*://' "/proc/$(cat "$scratch/pid")/cgroup" | sort -u)" /system.slice/husk-one.scope
for row in MemoryLimit=67108864 CPUShares=512 CPUQuotaPerSecUSec=20ms TasksMax=17 DevicePolicy=strict; do
    is "property $row" "$(systemctl show --value -p "${row%%=*}" husk-one.scope)" "${row#*=}"
done
limits system.slice/husk-one.scope 4000
# systemd writes its own idea of the devices again: it has to be the same.
systemctl daemon-reload
limits system.slice/husk-one.scope 4000
$runtime delete --force one
is "delete" "$? $(systemctl show --value -p LoadState husk-one.scope)" "0 not-found"
is "nothing is left" "$(find $at -name 'husk-one*')" ""

config /husk-two >"$scratch/config.json"
$runtime create --bundle "$scratch" two
is "create by husk itself" $? 0
limits husk-two 2468
$runtime delete --force two
is "delete" "$? $(find $at -name 'husk-two*')" "0 "
summary
