#!/bin/sh
# Networks where a distribution's kernel and systemd are: run in a virtual machine by contrib/vm-test, as root and as a user with
# a session. What the machine that husk is built on has no modules for runs here: macvlan, ipvlan, VLANs, sctp.
# Usage: networks.sh HUSK, an executable. Wants ip, nft, busybox and, for sctp, socat; a user also sudo, for the world.
set -u
husk=$1
. "$(dirname "$0")/scratch.sh"
PATH=$PATH:/usr/sbin:/sbin
as_root() { if [ "$me" = 0 ]; then "$@"; else sudo "$@"; fi; }
world() { as_root ip netns exec hk-world "$@"; }
finish() {
    clear_containers
    for name in $($husk network ls -q -f type=custom); do $husk network rm "$name" >/dev/null; done
    as_root ip link delete out0 2>/dev/null
    as_root ip link delete out1 2>/dev/null
    as_root kill "$served"
    as_root ip netns delete hk-world
    clear_store
    as_root rm -rf "$scratch"
}
trap finish EXIT
mkdir -p "$scratch/world"
echo hello >"$scratch/rootfs/a"
echo world >"$scratch/world/a"
# Runs a line of shell in a container: NETWORK LINE, busybox's programs by their names.
inside() { $husk run --rm --network "$1" "$image" /bin/busybox sh -c "$2" 2>&1; }
# A container that stays: NAME NETWORK.
stays() { $husk run -d --name "$1" --network "$2" "$image" /bin/busybox sleep 10000 >/dev/null; }
in_container() { $husk exec "$1" /bin/busybox sh -c "$2" 2>&1; }
reaches() { in_container "$1" "ping -c 1 -W 5 $2 >/dev/null && echo yes || echo no"; }
echo "# networks: Linux $(uname -r), user $me, $($husk --version | head -1)"

# The world: a namespace behind two wires.
as_root ip netns add hk-world
for number in 0 1; do
    as_root ip link add out$number type veth peer name in$number netns hk-world
    as_root ip address add 192.0.$((2 + number)).1/24 dev out$number
    as_root ip link set out$number up
    world ip address add 192.0.$((2 + number)).2/24 dev in$number
    world ip link set in$number up
done
world ip link set lo up
world busybox httpd -vv -f -p 80 -h "$scratch/world" 2>"$scratch/world.log" &
served=$!

# Names, ways out and in.
$husk network create front >/dev/null
$husk run -d --name web --network front:alias=www -p 8080:80 "$image" /bin/busybox httpd -f -vv -h / >/dev/null
is "by its name" "$(inside front 'wget -q -O- http://web/a')" hello
is "by its alias" "$(inside front 'wget -q -O- http://www/a')" hello
is "by the same name elsewhere" "$(inside bridge 'timeout 5 busybox wget -q -O- http://web/a >/dev/null 2>&1 || echo nobody')" nobody
asks() { world busybox wget -q -O- http://192.0.2.1:8080/a; }
until_is hello asks
is "from the world, by a published port" "$(asks)" hello
has "the container has seen who called" "$($husk logs web 2>&1)" 192.0.2.2
is "from loopback" "$(busybox wget -q -O- http://127.0.0.1:8080/a)" hello
is "out to the world" "$(inside front 'wget -q -O- http://192.0.2.2/a')" world
# What is long: a user's is carried by the kernel's own sockets, which count what they send in the networks' namespace.
dd if=/dev/zero of="$scratch/world/much" bs=1M count=64 status=none
is "much from the world" "$(inside front 'wget -q -O- http://192.0.2.2/much | wc -c')" 67108864
if [ "$me" != 0 ]; then
    sent=$($husk unshare --rootless-netns cat /proc/net/snmp | awk '/^Tcp: [0-9]/ { print $12 }')
    is "carried by the kernel's sockets" "$([ "${sent:-0}" -gt 500 ] && echo yes || echo "no: $sent segments")" yes
fi
has "in this host's name" "$(cat "$scratch/world.log")" 192.0.2.1
# An ordinary user's go by ping sockets, which are for the groups of a range that begins as none.
echoes() { inside front 'ping -c 1 -W 5 192.0.2.2 >/dev/null && echo yes || echo no'; }
if [ "$me" != 0 ]; then
    is "no echo without the right to ping" "$(cat /proc/sys/net/ipv4/ping_group_range | xargs) $(echoes)" "1 0 no"
    sudo sysctl -q -w net.ipv4.ping_group_range="0 2147483647"
fi
is "an echo from the world" "$(echoes)" yes
$husk restart -t 0 web >/dev/null
until_is hello asks
is "the same after a restart" "$(asks)" hello
$husk network create back >/dev/null
stays both back
$husk network connect front both
is "a container that was connected" "$(in_container both 'wget -q -O- http://web/a')" hello
$husk network disconnect front both
is "and disconnected" "$(in_container both 'timeout 5 busybox wget -q -O- http://web/a >/dev/null 2>&1 || echo nobody')" nobody
$husk rm -f web both >/dev/null
refused() { asks >/dev/null 2>&1 && echo heard || echo refused; }
until_is refused refused
is "nobody has the port any more" "$(refused)" refused

# Streams of another protocol: containers of this machine's own files have its socat.
if ! command -v socat >/dev/null; then
    skip "sctp" "no socat"
elif ! as_root modprobe -q sctp; then
    skip "sctp" "no module sctp"
elif [ "$me" != 0 ]; then
    has "sctp of a user's" "$($husk run --rm --network front -p 9000:9000/sctp "$image" /bin/busybox true 2>&1)" \
        "9000/sctp: an ordinary user's way out carries tcp and udp"
else
    $husk run -d --name streams --network front -p 9000:9000/sctp host: \
        socat SCTP-LISTEN:9000,fork 'SYSTEM:echo $SOCAT_PEERADDR' >/dev/null
    calls() { world timeout 20 socat -t 5 -u SCTP-CONNECT:192.0.2.1:9000 -; }
    until_is 192.0.2.2 calls
    is "sctp by a published port, from who called" "$(calls)" 192.0.2.2
    is "as it is listed" "$($husk port streams)" "9000/sctp -> 0.0.0.0:9000
9000/sctp -> [::]:9000"
    $husk rm -f streams >/dev/null
fi

if [ "$me" != 0 ]; then
    $husk network create -d macvlan -o parent=out0 lan >/dev/null
    has "macvlan of a user's" "$(inside lan true)" "not an ordinary user's"
    summary
    exit
fi

# What the kernel says of a container's interface: NAME.
shown() { nsenter -t "$(field .State.Pid "$1")" -n ip -details link show eth0; }
# What the world thinks who has an address: never nothing.
neighbour() { world ip neighbor show | sed -n "s/^${1:-none} .*lladdr \([^ ]*\).*/\1/p" | grep . || echo "nobody has ${1:-none}"; }
address_of() { field "(index .NetworkSettings.Networks \"$2\").IPAddress" "$1"; }

# macvlan: containers at the wire, with Ethernet addresses of their own.
lan="--subnet 192.0.2.0/24 --ip-range 192.0.2.64/26 --gateway 192.0.2.2"
if modprobe -q macvlan; then
    is "macvlan" "$($husk network create -d macvlan $lan -o parent=out0 lan >/dev/null && echo made)" made
    stays one lan
    stays two lan
    has "its interface" "$(shown one)" "macvlan mode bridge"
    is "macvlan reaches the world" "$(reaches one 192.0.2.2)" yes
    is "and its neighbour" "$(reaches one "$(address_of two lan)")" yes
    is "the world knows it by its own address" "$(neighbour "$(address_of one lan)")" \
        "$(field '(index .NetworkSettings.Networks "lan").MacAddress' one)"
    is "this host is out of its reach" "$(reaches one 192.0.2.1)" no
    is "its rule of the default" "$(in_container one "ip route | grep -c 'default via 192.0.2.2 dev eth0'")" 1
    $husk rm -f one two >/dev/null
    $husk network rm lan >/dev/null
    $husk network create -d macvlan $lan -o parent=out0 -o mode=private lan >/dev/null
    stays one lan
    stays two lan
    has "its mode" "$(shown one)" "macvlan mode private"
    is "private: the world" "$(reaches one 192.0.2.2)" yes
    is "private: not its neighbour" "$(reaches one "$(address_of two lan)")" no
    $husk rm -f one two >/dev/null
    $husk network rm lan >/dev/null
    # Upon a VLAN of the wire.
    if modprobe -q 8021q; then
        ip link add link out0 name out0.10 type vlan id 10
        ip link set out0.10 up
        world ip link add link in0 name in0.10 type vlan id 10
        world ip address add 198.51.100.2/24 dev in0.10
        world ip link set in0.10 up
        $husk network create -d macvlan --subnet 198.51.100.0/24 --gateway 198.51.100.2 -o parent=out0.10 lan >/dev/null
        stays one lan
        is "macvlan upon a VLAN" "$(reaches one 198.51.100.2)" yes
        $husk rm -f one >/dev/null
        $husk network rm lan >/dev/null
        ip link delete out0.10
    else
        skip "macvlan upon a VLAN" "no module 8021q"
    fi
else
    skip "macvlan" "no module macvlan"
fi

# ipvlan: the same with the wire's Ethernet address; in its third layer, by routes.
if modprobe -q ipvlan; then
    $husk network create -d ipvlan --subnet 192.0.3.0/24 --ip-range 192.0.3.64/26 --gateway 192.0.3.2 -o parent=out1 lan >/dev/null
    stays one lan
    stays two lan
    has "ipvlan" "$(shown one)" "ipvlan  mode l2"
    is "ipvlan reaches the world" "$(reaches one 192.0.3.2)" yes
    is "and its neighbour" "$(reaches one "$(address_of two lan)")" yes
    is "the world knows it by the wire's address" "$(neighbour "$(address_of one lan)")" "$(cat /sys/class/net/out1/address)"
    $husk rm -f one two >/dev/null
    $husk network rm lan >/dev/null
    $husk network create -d ipvlan --subnet 203.0.113.0/24 -o parent=out1 -o ipvlan_mode=l3 lan >/dev/null
    world ip route add 203.0.113.0/24 via 192.0.3.1
    stays one lan
    stays two lan
    has "ipvlan of the third layer" "$(shown one)" "ipvlan  mode l3"
    is "l3 reaches the world" "$(reaches one 192.0.3.2)" yes
    is "and its neighbour" "$(reaches one "$(address_of two lan)")" yes
    $husk rm -f one two >/dev/null
    $husk network rm lan >/dev/null
else
    skip "ipvlan" "no module ipvlan"
fi

# What is left of it all: the rules go with the networks.
for name in $($husk network ls -q -f type=custom); do $husk network rm "$name" >/dev/null; done
is "bridges that are left" "$(ip -br link show type bridge | grep -c '^hk-')" 0
summary
