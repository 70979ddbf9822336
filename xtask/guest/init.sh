#!/bin/sh
# Runs as root in the guest and makes it what the commands expect, then runs the command.
# $1: the run's directory, see xtask/src/rundir.rs. It holds `env`, `cmd` and `keep`, written by the host; this script
# writes `failed` (why there is no guest), `ready` and `status`.

run=$1
. "$run/env"

die() {
    echo "$*" >"$run/failed"
    exit 125
}

# A /tmp of its own instead of an overlay over the host's: tests must not meet the host's files, nor a file system that
# no user has there. What the host needs to be visible below /tmp is mounted back.
fresh_tmp() {
    mkdir -p /run/host-tmp &&
        mount --rbind /tmp /run/host-tmp &&
        mount -t tmpfs -o mode=1777 tmpfs /tmp || die "cannot mount a fresh /tmp"
    while read -r kept; do
        mkdir -p "$kept" && mount --rbind "/run/host-tmp${kept#/tmp}" "$kept" || die "cannot keep $kept"
    done </run/host-keep
}

# virtme-ng's root reads the host's anew at every open and every look at a path. In its place comes a root that keeps what it
# has read, as the host's files do not change while the guest runs: to start a program asks the host less than half as
# often. What the guest has mounted moves along. Where it cannot be had it is done without.
keep_root() {
    mount -t 9p -o ro,trans=virtio,version=9p2000.L,access=any,msize=524288,cache=loose host /mnt 2>/dev/null || return 0
    mount --make-rprivate /
    # A layer over the libraries: the kernel's modules have no place in the host's, and to open a file there is to ask the
    # host, so what nearly every program loads lies in the guest's memory.
    kept=/run/lib/upper/$(uname -m)-linux-gnu
    mkdir -p "$kept" /run/lib/upper/modules /run/lib/work /run/old
    for library in ld-linux-x86-64 libc libm libz libelf libgcc_s libselinux libpcre2-8 libtinfo libblkid libmount; do
        cp -L "/mnt/usr/lib/${kept##*/}/$library.so".[0-9] "$kept/" 2>/dev/null || :
    done
    mount -t overlay -o lowerdir=/mnt/usr/lib,upperdir=/run/lib/upper,workdir=/run/lib/work lib /mnt/usr/lib &&
        cp /etc/ld.so.cache /run/ && mount --bind /run/ld.so.cache /etc/ld.so.cache || die "cannot mount the libraries"
    move_mounts
    cd /mnt && pivot_root . run/old && umount -l /run/old || die "cannot change the root"
}

# Those that lie on the root, with what lies on them.
move_mounts() {
    moved=" / /mnt /usr /usr/lib "
    while read -r _ _ _ _ place _; do
        above=$place
        while [ "${moved#* "$above" }" = "$moved" ]; do
            above=${above%/*}
            [ -n "$above" ] || break
        done
        case $above in
        "" | /usr | /usr/lib) ;;
        *) continue ;;
        esac
        case $moved in *" $place "*) continue ;; esac
        moved="$moved$place "
        mount --rbind "$place" "/mnt$place" || die "cannot move $place"
    done </proc/self/mountinfo
}

# File systems' modules load themselves at the first mount, but nothing loads these. A module that a kernel lacks is not
# an error here: whoever needs it says so. -i: ndctl has modprobe look for NVDIMM passphrases in the host's TPM.
load_modules() {
    modprobe -q -i -a virtio_blk libnvdimm loop rdma_rxe ib_uverbs rdma_ucm nfit nd_pmem dax_pmem device_dax || :
}

rdma_device() {
    ip link set lo up
    # A page to a packet: soft-RoCE loses the offset in the page when it copies to or from an on-demand region, so a
    # packet must begin where a page does.
    ip link add dummy0 mtu 9000 type dummy &&
        ip addr add 10.9.0.1/24 dev dummy0 &&
        ip link set dummy0 up &&
        rdma link add rxe0 type rxe netdev dummy0 || die "cannot make the soft-RoCE device rxe0"
}

# What `ndctl create-namespace` does, in a tenth of its time: a namespace is given to the driver that keeps struct pages
# for it. Without that it is raw, and a file system on it would quietly not be DAX. One that an earlier guest has made is
# found by the kernel itself.
dax_device() {
    namespace=$1 seed=$2 driver=$3
    [ -z "$(cat "devices/$namespace/holder")" ] || return 0
    echo "$namespace" >drivers/nd_pmem/unbind &&
        echo 2097152 >"devices/$seed/align" &&
        echo pmem >"devices/$seed/mode" &&
        cat /proc/sys/kernel/random/uuid >"devices/$seed/uuid" &&
        echo "$namespace" >"devices/$seed/namespace" &&
        echo "$seed" >"drivers/$driver/bind" || die "cannot make $seed of $namespace"
}

dax_devices() {
    cd /sys/bus/nd || die "no NVDIMM bus"
    dax_device namespace0.0 pfn0.0 nd_pmem
    dax_device namespace1.0 dax1.0 dax_pmem
    [ -b /dev/pmem0 ] && [ -c /dev/dax1.0 ] || die "no DAX devices"
}

# The root is read-only: /mnt becomes a tmpfs, and the image of a real file system lies on it.
scratch() {
    mount -t tmpfs -o mode=755 tmpfs /mnt && mkdir /mnt/scratch || die "cannot prepare /mnt"
    if [ "$LONGPIN_SCRATCH_FS" = tmpfs ]; then
        mount -t tmpfs -o size=1G scratch /mnt/scratch || die "cannot mount the scratch tmpfs"
        return
    fi
    force=-f
    [ "$LONGPIN_SCRATCH_FS" = ext4 ] && force=-F
    truncate -s 1G /mnt/image &&
        "mkfs.$LONGPIN_SCRATCH_FS" -q "$force" /mnt/image >/dev/null &&
        mount -t "$LONGPIN_SCRATCH_FS" -o loop /mnt/image /mnt/scratch ||
        die "cannot make a scratch $LONGPIN_SCRATCH_FS"
}

cp "$run/keep" /run/host-keep
fresh_tmp
keep_root
load_modules &
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf || die "cannot mount /sys/fs/bpf"
wait
rdma_device &
dax_devices &
scratch
wait
[ -e "$run/failed" ] && exit 125

export LONGPIN_DISK=/dev/vda LONGPIN_DISK_IMAGE="$run/disk"
export LONGPIN_FSDAX=/dev/pmem0 LONGPIN_DEVDAX=/dev/dax1.0 LONGPIN_SCRATCH=/mnt/scratch
ulimit -l unlimited
# Warnings and worse go to the console, which the host reads.
dmesg -n warn
cd "$LONGPIN_CWD" || die "cannot enter $LONGPIN_CWD: it is not visible in the guest"

: >"$run/ready"
sh "$run/cmd" </dev/null
status=$?
echo "$status" >"$run/status.tmp" && mv "$run/status.tmp" "$run/status"
exit "$status"
