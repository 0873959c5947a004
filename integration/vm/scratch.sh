# What the scripts that run containers of the engine have in common: directories of their own, an image of busybox, and how they ask.
# To be sourced, with `husk` the executable; whoever does removes $scratch.
me=$(id -u)
scratch=$(mktemp -d /tmp/husk-vm-XXXXXX)
. "$(dirname "$0")/checks.sh"
export HUSK_DATA_ROOT=$scratch/data HUSK_RUN_ROOT=$scratch/run
chmod 755 "$scratch"
mkdir -p "$scratch/rootfs/bin" "$scratch/rootfs/proc" "$scratch/rootfs/tmp"
cp /bin/busybox "$scratch/rootfs/bin/busybox"
ln -s busybox "$scratch/rootfs/bin/sh"
image=dir:$scratch/rootfs
field() { $husk inspect -f "{{$1}}" "$2"; }
# Waits at most a minute until a command says something: WANTED COMMAND…
until_is() {
    wanted=$1
    shift
    for _ in $(seq 300); do
        [ "$("$@" 2>/dev/null)" = "$wanted" ] && return 0
        sleep 0.2
    done
    return 1
}
clear_containers() {
    for name in $($husk ps -aq); do $husk rm -f "$name" >/dev/null; done
}
# An ordinary user's is of subordinate ids as well.
clear_store() {
    [ "$me" = 0 ] || $husk unshare rm -rf "$scratch/data"
}
