#!/bin/sh
# What husk does with cgroups where systemd and pure cgroup v2 are: run in a virtual machine by contrib/vm-test, as root
# and as a user with a session. Prints a line a check and, at the end, how many there were.
# Usage: cgroups.sh HUSK, an executable; busybox is the machine's own, static.
set -u
husk=$1
me=$(id -u)
scratch=$(mktemp -d /tmp/husk-vm-XXXXXX)
. "$(dirname "$0")/checks.sh"
runtime="$husk oci --root $scratch/state --systemd-cgroup"
plain="$husk oci --root $scratch/state"

finish() {
    for state in "$scratch"/state/*/; do
        [ -d "$state" ] && $runtime delete --force "$(basename "$state")"
    done
    rm -rf "$scratch"
}
trap finish EXIT

# bundle DIRECTORY CGROUPS_PATH RESOURCES ANNOTATIONS [EXTRA_MOUNT_OPTION] [COMMAND]
bundle() {
    mkdir -p "$1/rootfs/bin" "$1/rootfs/proc" "$1/rootfs/sys" "$1/rootfs/dev"
    cp /bin/busybox "$1/rootfs/bin/busybox"
    ln -sf busybox "$1/rootfs/bin/sh"
    user='' maps=''
    if [ "$me" != 0 ]; then
        user=', {"type": "user"}'
        maps="\"uidMappings\": [{\"containerID\": 0, \"hostID\": $me, \"size\": 1}],
              \"gidMappings\": [{\"containerID\": 0, \"hostID\": $(id -g), \"size\": 1}],"
    fi
    cat >"$1/config.json" <<JSON
{
  "ociVersion": "1.3.0",
  "process": {
    "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
    "args": ["/bin/busybox", "sh", "-c", "${6:-exec busybox sleep 10000}"]
  },
  "root": {"path": "rootfs"},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "${5:-ro}"]}
  ],
  "annotations": {$4},
  "linux": {
    $maps
    "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}$user],
    "cgroupsPath": "$2",
    "resources": {$3}
  }
}
JSON
}
pid() { cat "$scratch/$1.pid"; }
cgroup() { sed -n 's/^0:://p' "/proc/$(pid "$1")/cgroup"; }
start() { # ID RUNTIME…: create and start the bundle of that name
    id=$1
    shift
    "$@" create --bundle "$scratch/$id" --pid-file "$scratch/$id.pid" "$id" && "$@" start "$id"
}
value() { cat "/sys/fs/cgroup$1/$2"; }
property() { $ctl show --value -p "$2" "$1"; }

if [ "$me" = 0 ]; then
    ctl=systemctl slice=/system.slice
else
    ctl='systemctl --user' slice=/user.slice/user-$me.slice/user@$me.service/user.slice
fi
echo "# $(systemctl --version | head -1), Linux $(uname -r), user $me"

# A scope with limits, read back from systemd and from the files.
bundle "$scratch/limits" ":husk:limits" '
    "memory": {"limit": 67108864, "reservation": 33554432, "swap": 100663296},
    "cpu": {"shares": 1024, "quota": 2468, "period": 200000, "cpus": "0", "burst": 0},
    "pids": {"limit": 23},
    "unified": {"memory.high": "60000000", "memory.oom.group": "1"}' '
    "org.systemd.property.TimeoutStopSec": "uint64 11",
    "org.systemd.property.CollectMode": "'"'inactive-or-failed'"'"'
start limits $runtime
is "create and start with systemd" $? 0
unit=husk-limits.scope
is "the container is in its scope" "$(cgroup limits)" "$slice/$unit"
is "the scope is known" "$(property $unit ActiveState)" active
is "it is below the slice" "$(property $unit Slice)" "$(basename "$slice")"
is "it is delegated" "$(property $unit Delegate)" yes
is "it is accounted for" "$(property $unit CPUAccounting)$(property $unit MemoryAccounting)$(property $unit TasksAccounting)$(property $unit IOAccounting)" yesyesyesyes
is "it has no default dependencies" "$(property $unit DefaultDependencies)" no
for row in MemoryMax=67108864 MemoryLow=33554432 MemoryHigh=60000000 MemorySwapMax=33554432 CPUWeight=100 \
    CPUQuotaPerSecUSec=20ms CPUQuotaPeriodUSec=200ms TasksMax=23 AllowedCPUs=0 TimeoutStopUSec=11s CollectMode=inactive-or-failed; do
    is "property $row" "$(property $unit "${row%%=*}")" "${row#*=}"
done
if [ "$me" = 0 ]; then
    is "property DevicePolicy" "$(property $unit DevicePolicy)" strict
    has "property DeviceAllow" "$(property $unit DeviceAllow)" "/dev/char/1:3 rwm"
fi
at=$(cgroup limits)
for row in memory.max=67108864 memory.low=33554432 memory.high=59998208 memory.swap.max=33554432 cpu.weight=100 \
    "cpu.max=4000 200000" pids.max=23 cpuset.cpus=0 memory.oom.group=1; do
    is "file $row" "$(value "$at" "${row%%=*}")" "${row#*=}"
done
$ctl daemon-reload
is "a reload of systemd changes nothing" "$(value "$at" memory.max) $(value "$at" cpu.max) $(value "$at" pids.max)" "67108864 4000 200000 23"

# Another process of the container.
if $runtime exec --help >/dev/null 2>&1; then
    $plain exec --detach --pid-file "$scratch/exec.pid" limits /bin/busybox sleep 10001
    is "exec into a scope" $? 0
    is "it is in the scope" "$(cgroup exec)" "$slice/$unit"
else
    skip "exec into a scope" "no such verb yet"
fi
if $runtime update --help >/dev/null 2>&1; then
    # Without --systemd-cgroup, as CRI-O calls it.
    $plain update --memory 100663296 --memory-swap 134217728 --pids-limit 40 --cpu-quota 50000 --cpu-share 512 limits
    is "update a scope" $? 0
    is "property MemoryMax after update" "$(property $unit MemoryMax)" 100663296
    is "property MemorySwapMax after update" "$(property $unit MemorySwapMax)" 33554432
    is "property TasksMax after update" "$(property $unit TasksMax)" 40
    is "property CPUQuotaPerSecUSec after update" "$(property $unit CPUQuotaPerSecUSec)" 250ms
    is "files after update" "$(value "$at" memory.max) $(value "$at" pids.max) $(value "$at" cpu.max) $(value "$at" cpu.weight)" "100663296 40 50000 200000 59"
else
    skip "update a scope" "no such verb yet"
fi
$plain delete --force limits
is "delete" $? 0
is "the scope is gone" "$(property $unit LoadState)" not-found
is "its cgroup is gone" "$(ls -d "/sys/fs/cgroup$at" 2>/dev/null)" ""

# A subgroup, as crun has it.
bundle "$scratch/sub" ":husk:sub" '"memory": {"limit": 67108864}' '"run.oci.systemd.subgroup": "container/main"'
start sub $runtime
is "create with a subgroup" $? 0
is "the container is in it" "$(cgroup sub)" "$slice/husk-sub.scope/container/main"
is "its limit is the scope's too" "$(property husk-sub.scope MemoryMax) $(value "$(cgroup sub)" memory.max)" "67108864 67108864"
# Children in cgroups of their own do not keep the container from being removed.
at=$slice/husk-sub.scope
mkdir -p "/sys/fs/cgroup$at/container/other/deep"
sleep 10002 &
if [ "$me" = 0 ]; then echo $! >"/sys/fs/cgroup$at/container/main/cgroup.procs"; fi
$runtime delete --force sub
is "delete with a subgroup" $? 0
is "nothing is left of it" "$(ls -d "/sys/fs/cgroup$at" 2>/dev/null)$(property husk-sub.scope LoadState)" not-found
kill $! 2>/dev/null

# The same name again, after a failure: systemd remembers the failed unit.
bundle "$scratch/oom" ":husk:oom" '"memory": {"limit": 16777216, "swap": 16777216}' '' ro \
    'x=x; while true; do x=$x$x; done'
start oom $runtime
while kill -0 "$(pid oom)" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$(pid oom)/status" 2>/dev/null; do sleep 0.1; done
is "a container ends for want of memory" "$($runtime state oom | sed -n 's/.*"status": "\(.*\)".*/\1/p')" stopped
$runtime delete oom
is "delete after that" $? 0
is "the failed scope is forgotten" "$(property husk-oom.scope LoadState)" not-found
bundle "$scratch/oom" ":husk:oom" '' ''
start oom $runtime
is "the name can be had again" $? 0
$runtime delete --force oom

# Paths that are none.
for path in /no/slice a:b nodot:x:y "-a.slice:x:y" ":x:../y"; do
    bundle "$scratch/bad" "$path" '' ''
    said=$($runtime create --bundle "$scratch/bad" bad 2>&1)
    is "cgroupsPath $path is refused" $? 1
    has "and named" "$said" "${path%%:*}"
done

# Pure v2 by husk itself: every kind of limit, into a cgroup of our own.
if [ "$me" = 0 ]; then
    own=/husk-vm
else
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    case $own in
        *user@*) own=$own/husk-vm ;;
        *) own='' ;;
    esac
fi
if [ -z "$own" ]; then
    skip "cgroupfs as a user" "this session is not in a delegated cgroup"
else
    device=$(cat /sys/block/vda/dev)
    root_only=''
    if [ "$me" = 0 ]; then
        root_only='"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5_0": {"hcaHandles": 3}},'
        [ -e /sys/class/infiniband ] || root_only='"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],'
    fi
    bundle "$scratch/v2" "$own/v2" "$root_only"'
        "memory": {"limit": 67108864, "swap": 67108864},
        "cpu": {"shares": 512, "idle": 0, "quota": -1, "period": 50000, "mems": "0"},
        "pids": {"limit": 0},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": '"${device%:*}"', "minor": '"${device#*:}"', "rate": 1048576}]},
        "unified": {"cpu.uclamp.min": "0", "memory.min": "4096"}' ''
    grep -q . /sys/fs/cgroup/cpu.uclamp.min 2>/dev/null || sed -i 's/"cpu.uclamp.min": "0", //' "$scratch/v2/config.json"
    # Into a file: the container keeps a pipe open. A limit of no process is one of one.
    start v2 $plain >"$scratch/said" 2>&1
    is "create by husk itself" "$? $(cat "$scratch/said")" "0 "
    at=$(cgroup v2)
    is "clone3 put it where it belongs" "$at" "$own/v2"
    for row in memory.max=67108864 memory.swap.max=0 memory.min=4096 cpu.weight=59 "cpu.max=max 50000" pids.max=1 \
        "io.max=$device rbps=1048576 wbps=max riops=max wiops=max"; do
        is "file $row" "$(value "$at" "${row%%=*}")" "${row#*=}"
    done
    if [ "$me" = 0 ]; then
        is "file hugetlb.2MB.max" "$(value "$at" hugetlb.2MB.max) $(value "$at" hugetlb.2MB.rsvd.max)" "4194304 4194304"
    fi
    if $runtime pause --help >/dev/null 2>&1; then
        $plain pause v2
        is "pause" "$? $(value "$at" cgroup.freeze)" "0 1"
        $plain resume v2
        is "resume" "$? $(value "$at" cgroup.freeze)" "0 0"
    else
        skip "pause and resume" "no such verb yet"
    fi
    mkdir -p "/sys/fs/cgroup$at/a/b"
    $plain delete --force v2
    is "delete with cgroups below" "$? $(ls -d "/sys/fs/cgroup$at" 2>/dev/null)" "0 "

    bundle "$scratch/idle" "$own/idle" '"cpu": {"shares": 512, "idle": 1}' ''
    start idle $plain
    is "an idle group" "$? $(value "$own/idle" cpu.idle)" "0 1"
    $plain delete --force idle
fi

if [ "$me" = 0 ]; then
    # A container that may write to its cgroup gets it, and not its limits.
    bundle "$scratch/rw" /husk-vm/rw '"memory": {"limit": 67108864}' '' rw
    sed -i 's/"uid": 0, "gid": 0}/"uid": 1234, "gid": 0}/' "$scratch/rw/config.json"
    start rw $plain
    at=/sys/fs/cgroup$(cgroup rw)
    is "a writable cgroup is the container's" "$(stat -c %u "$at" "$at/cgroup.procs" "$at/cgroup.subtree_control" "$at/memory.max" | tr '\n' ' ')" "1234 1234 1234 0 "
    $plain delete --force rw

    # In a container, whose top has processes: they make room (the no internal processes rule).
    bundle "$scratch/nested" /husk-vm/nested '"memory": {"limit": 67108864}, "pids": {"limit": 9}' '' ro 'exit 0'
    said=$(systemd-run --scope -q -p Delegate=yes unshare --cgroup --mount sh -c "
        umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && $plain create --bundle $scratch/nested nested >/dev/null 2>$scratch/said
        cat /sys/fs/cgroup/husk-vm/nested/memory.max /sys/fs/cgroup/init/cgroup.procs | head -1
        $plain delete --force nested")
    is "limits below a top with processes" "$said$(cat "$scratch/said")" 67108864
    rmdir /sys/fs/cgroup/husk-vm 2>/dev/null
fi

# The engine takes systemd where it is, without being told. (The kernel keeps from a first process the signals that it has
# not asked for.)
HUSK_DATA_ROOT=$scratch/data HUSK_RUN_ROOT=$scratch/run \
    $husk run --rm --memory 64m host: -- sh -c 'trap exit TERM; sleep 1000 & wait' 2>/dev/null &
engine=$!
unit=''
for _ in $(seq 100); do
    unit=$($ctl list-units --plain --no-legend 'husk-*.scope' | sed 's/ .*//' | head -1)
    [ -n "$unit" ] && break
    sleep 0.2
done
is "the engine's container is a scope with its limit" "$(property "$unit" MemoryMax)" 67108864
kill $engine
wait $engine 2>/dev/null
is "and the scope ends with it" "$(property "$unit" LoadState)" not-found

summary
