#!/bin/sh
# The engine where systemd and pure cgroup v2 are: run in a virtual machine by contrib/vm-test, as root and as a user with a
# session. Units that husk writes are systemd's to run here; what ran out of memory is told.
# Usage: engine.sh HUSK, an executable; busybox is the machine's own, static.
set -u
husk=$1
. "$(dirname "$0")/scratch.sh"
if [ "$me" = 0 ]; then
    ctl=systemctl units=/run/systemd/system
else
    ctl='systemctl --user' units=$XDG_RUNTIME_DIR/systemd/user
fi
finish() {
    $ctl stop husk-vm-unit husk-vm-net husk-vm-boot 2>/dev/null
    rm -f "$units"/husk-vm-*.service
    $ctl daemon-reload
    clear_containers
    clear_store
    rm -rf "$scratch"
}
trap finish EXIT
mkdir -p "$units"
echo "# the engine: $(systemctl --version | head -1), Linux $(uname -r), user $me"

is "run" "$($husk run --rm "$image" /bin/busybox echo inside 2>/dev/null)" inside
$husk run -d --name limits -m 64m --pids-limit 20 "$image" /bin/busybox sleep 10000 >/dev/null
cgroup=$(sed -n 's/^0:://p' "/proc/$(field .State.Pid limits)/cgroup")
is "its limit of memory" "$(cat "/sys/fs/cgroup$cgroup/memory.max")" 67108864
is "its limit of processes" "$(cat "/sys/fs/cgroup$cgroup/pids.max")" 20
$husk update --pids-limit 30 limits >/dev/null
is "its limit after an update" "$(cat "/sys/fs/cgroup$cgroup/pids.max")" 30
$husk rm -f limits >/dev/null

# Out of memory.
$husk run --name hog -m 16m --memory-swap 16m "$image" /bin/busybox tail /dev/zero 2>/dev/null
is "a container without memory ends with" $? 137
is "inspect says so" "$(field .State.OOMKilled hog)" true
has "why says so" "$($husk why hog)" "for its memory limit of 16MiB"
is "why has a word for it" "$($husk why --format json hog | grep -o '"cause":"[a-z-]*"')" '"cause":"out-of-memory"'

# systemd removes a scope's cgroup the moment that it is empty: what it counted is known all the same.
missed=0
for round in $(seq 8); do
    $husk run -d --name "hog$round" -m 16m --memory-swap 16m "$image" /bin/busybox tail /dev/zero >/dev/null
    $husk wait "hog$round" >/dev/null
    [ "$(field .State.OOMKilled "hog$round")" = true ] || missed=$((missed + 1))
    $husk rm "hog$round" >/dev/null
done
is "ends for want of memory that were missed, of eight" "$missed" 0

# A container's unit: systemd starts it, starts it again after a failure, and stops it.
$husk create --name unit "$image" /bin/busybox sh -c 'trap "exit 0" TERM; busybox sleep 10000 & wait' >/dev/null
$husk generate systemd --name unit >"$units/husk-vm-unit.service"
$ctl daemon-reload
$ctl start husk-vm-unit
is "systemctl start" $? 0
until_is running field .State.Status unit
is "the container of a unit" "$(field .State.Status unit)" running
before=$(field .State.Pid unit)
$husk kill unit >/dev/null
again() { [ "$(field .State.Status unit)" = running ] && [ "$(field .State.Pid unit)" != "$before" ] && echo yes; }
until_is yes again
is "after a failure it runs again" "$(again)" yes
is "the unit is" "$($ctl is-active husk-vm-unit)" active
$ctl stop husk-vm-unit
is "systemctl stop" $? 0
is "the container is then" "$(field .State.Status unit)" exited
is "the unit is then" "$($ctl is-failed husk-vm-unit)" inactive

# A network's name server, and a user's way out, are not the unit's whose container was the first.
server() { for of in /proc/[0-9]*; do tr '\0' ' ' <"$of/cmdline" 2>/dev/null | grep -q "internal $1" && sed -n 's/^0:://p' "$of/cgroup"; done; }
if $husk network create app >/dev/null && $husk create --name unit2 --network app "$image" /bin/busybox sleep 10000 >/dev/null \
    && $husk generate systemd --name unit2 >"$units/husk-vm-net.service" && $ctl daemon-reload && $ctl start husk-vm-net \
    && until_is running field .State.Status unit2 && $husk run -d --name other --network app "$image" /bin/busybox sleep 10000 >/dev/null; then
    has "the name server has a scope of its own" "$(server 'dns app')" "husk-network-"
    [ "$me" = 0 ] || has "so has the way out" "$(server network)" "husk-network-"
    $ctl stop husk-vm-net
    has "a name is found once that unit has stopped" "$($husk exec other /bin/busybox nslookup other 2>&1)" "Name:"
    $husk rm -f other unit2 >/dev/null
    is "its network goes" "$($husk network rm app)" app
else
    skip "networks of units" "no network can be made here"
fi

# The unit of the boot. What a power cut leaves is a container that is gone with its monitor.
$husk run -d --name always --restart always "$image" /bin/busybox sleep 10000 >/dev/null
$husk run -d --name never "$image" /bin/busybox sleep 10000 >/dev/null
for name in always never; do
    pid=$(field .State.Pid $name)
    kill -9 "$(sed -n 's/^PPid:\t//p' "/proc/$pid/status")" "$pid"
done
until_is exited field .State.Status always
until_is exited field .State.Status never
$husk generate boot >"$units/husk-vm-boot.service"
$ctl daemon-reload
$ctl start husk-vm-boot
is "systemctl start of the boot's unit" $? 0
is "what is always to run runs" "$(field .State.Status always)" running
is "what is not does not" "$(field .State.Status never)" exited
$ctl stop husk-vm-boot
is "the boot's unit leaves it alone" "$(field .State.Status always)" running
$husk stop -t 0 always >/dev/null
is "until it is stopped" "$(field .State.Status always)" exited

# A bound on a volume needs a file system with project quotas, and root.
if [ "$me" = 0 ] && modprobe -q quota_v2 && truncate -s 64M "$scratch/disk" \
    && mkfs.ext4 -q -O quota,project -E quotatype=prjquota "$scratch/disk" && mkdir "$scratch/quota" \
    && mount -o loop,prjquota "$scratch/disk" "$scratch/quota"; then
    HUSK_DATA_ROOT=$scratch/quota/data
    mkdir -m 700 "$HUSK_DATA_ROOT"
    is "a volume with a bound" "$($husk volume create -o size=1m bounded)" bounded
    $husk run --rm -v bounded:/v "$image" /bin/busybox dd if=/dev/zero of=/v/big bs=64k count=64 2>"$scratch/said"
    is "what is too much for it fails" $? 1
    has "and it says why" "$(cat "$scratch/said")" "Disk quota exceeded"
    # The directory itself takes a block.
    is "what fits is there" "$($husk run --rm -v bounded:/v "$image" /bin/busybox stat -c %s /v/big)" 1044480
    is "it is removed" "$($husk volume rm bounded)" bounded
    HUSK_DATA_ROOT=$scratch/data
    umount "$scratch/quota"
else
    skip "volumes with a bound" "no ext4 with project quotas for this user"
fi
summary
