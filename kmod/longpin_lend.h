/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * /dev/longpin-lend: the pages of a held DAX file, for devices that cannot take page faults. README.md says what for.
 *
 * Each structure begins with its own size. A newer program on an older module gets E2BIG if it asks for what the module
 * does not know (bytes behind the known ones that are not zero), an older program on a newer module gets zeroes for what
 * it did not say. EINVAL if the size is smaller than version 1's or larger than a page, or a `zero` is not; ENOTTY for an
 * unknown request; any may answer EFAULT for an address that is not the caller's, and ENOMEM.
 */
#ifndef LONGPIN_LEND_H
#define LONGPIN_LEND_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define LONGPIN_LEND_DEVICE "/dev/longpin-lend"
#define LONGPIN_LEND_VERSION 1

/* What the device, or a registration, may do with the pages. */
#define LONGPIN_LEND_WRITE	(1U << 0)	/* it may write; holes in the range are allocated first */
#define LONGPIN_LEND_REGISTER	(1U << 1)	/* door 3: this process may register mappings of the range (ibv_reg_mr) */

/* At most so many groups a lend. */
#define LONGPIN_LEND_GROUPS 16

/*
 * LEND: pins a range of a held DAX file; answers a dma-buf (close-on-exec). The lend lasts as long as anything has the
 * dma-buf (descriptors, mappings, importers), then until nobody else has the groups open, then until nobody else has a
 * page of it pinned. Until then the module keeps file and token open. While LEND runs, the caller has the range mapped, a
 * GiB at a time: a child that is forked then keeps that mapping.
 *
 * EBADF       file, token or a group is no open descriptor
 * EINVAL      the range is empty, not of whole pages, overflows or ends behind the file; an unknown flag; too many
 *             groups; the token is no regular file, or one of the kernel's own that is no memfd, or is the file
 * EACCES      the file is not open for reading and writing (for a lend that only reads, too)
 * EOPNOTSUPP  no DAX file of ext4 or xfs; or a page of the range is not the file's own memory: a hole, lent for reading; also
 *             blocks that the kernel marks as shared with another file, which 6.2 to 6.14 do, and later ones once both files
 *             are mapped (to look for such blocks is the hold's). Or the memory of this guest is encrypted
 * EPERM       nobody holds the file at level swapfile, or it lost its hold meanwhile
 * ETXTBSY     a lend for writing of a file that has S_SWAPFILE already: the kernel makes no writable mapping of it. Lend
 *             first, FLAG second
 * EXDEV       the token says that it is another file's
 * ENODEV      a group is no VFIO group (/dev/vfio/N)
 * ENXIO       LONGPIN_LEND_REGISTER, but door 3 is not armed: module parameter door3=0, or see the kernel log. Or the DAX
 *             device is being taken away
 * ENOMEM      RLIMIT_MEMLOCK (CAP_IPC_LOCK goes beyond it)
 * EAGAIN      the same limit, by mlockall(MCL_FUTURE) of the caller
 * EMFILE      no free descriptor
 * EINTR       killed while it pinned
 * EFAULT      the file system could not map the range (a full disk, bad memory)
 */
struct longpin_lend {
	__u32 size;
	__u32 flags;
	__s32 file;
	__s32 token;		/* the hold's, as CMD of `longpin hold FILE -- CMD` inherits it: $LONGPIN_EXTENTS */
	__u64 offset, length;	/* bytes, whole pages */
	__u64 groups;		/* pointer to __s32[group_count]: open VFIO groups whose devices will have the pages */
	__u32 group_count;	/* none: mmap of the dma-buf is refused (ENXIO) until UNTIL names the first */
	__u32 zero;
};

/*
 * UNTIL: the pages stay until this VFIO group is closed by everybody else, too. A group named twice counts once.
 *
 * EBADF       dmabuf or group is no open descriptor
 * EINVAL      dmabuf is no lend's
 * ENODEV      group is no VFIO group
 * ENOSPC      the lend has LONGPIN_LEND_GROUPS groups
 */
struct longpin_lend_until {
	__u32 size;
	__s32 dmabuf;
	__s32 group;
	__u32 zero;
};

/*
 * FLAG: sets S_SWAPFILE, the kernel's own mark of a swap file, on an ext4 or xfs file; answers a descriptor
 * (close-on-exec). The flag goes with that descriptor's last copy. Nothing is checked of the file's blocks: who asks has
 * done so. The module keeps the file open. It needs no hold, no lend and no DAX.
 *
 * EBADF       file is no open descriptor
 * EACCES      it is not open for writing
 * EINVAL      no regular file
 * EOPNOTSUPP  neither ext4 nor xfs: others keep books of their own of their swap files
 * EBUSY       it is a swap file, or has the flag already
 * EMFILE      no free descriptor
 * EINTR       killed while it waited for the inode
 */
struct longpin_lend_flag {
	__u32 size;
	__s32 file;
};

/* LIST: states of a row. */
#define LONGPIN_ROW_WRITE	LONGPIN_LEND_WRITE
#define LONGPIN_ROW_REGISTER	LONGPIN_LEND_REGISTER
#define LONGPIN_ROW_OPEN	(1U << 8)	/* the dma-buf is still there; else it only waits for those who use it */
#define LONGPIN_ROW_PINNED	(1U << 9)	/* a page is pinned by others than lends: a registration, direct I/O */
#define LONGPIN_ROW_REVOKED	(1U << 10)	/* taken back from importers that can be told */
#define LONGPIN_ROW_FLAG	(1U << 11)	/* no lend but a flag: offset and length are 0 */

struct longpin_lend_row {
	__u64 id;		/* of the lend, never used again */
	__u64 dev;		/* as st_dev: major and minor by makedev(3) */
	__u64 inode;
	__u64 offset, length;
	__u64 since;		/* nanoseconds of CLOCK_BOOTTIME */
	__u32 flags;
	__s32 pid;		/* who lent, in the caller's pid namespace; 0 if it is not in there */
	__u32 groups;		/* named, and still waited for */
	__u32 importers;	/* attached to the dma-buf: door 1 */
	__u32 mappings;		/* of the dma-buf: door 2 */
	__u32 zero;
	char command[16];	/* who lent, with its last zero */
};

/*
 * LIST: the lends and flags, also those whose dma-buf is closed and which still wait, in ascending order of id, from the
 * first whose id is greater than `after`. What is listed no more has let go of pages, file and token. Answers how many rows
 * it wrote: fewer than `room` is the end. Each call lists those of one moment; what it says of each is a little younger. Rows
 * are row_size bytes apart; a smaller row than the module's is cut, a larger one is filled with zeroes.
 *
 * EINVAL      row_size is smaller than version 1's or larger than a page; room is 2^31 or more
 * EPERM       the caller does not have CAP_SYS_ADMIN
 * EINTR       killed while it looked
 */
struct longpin_lend_list {
	__u32 size;
	__u32 row_size;
	__u64 after;
	__u64 rows;		/* pointer to room rows */
	__u32 room;
	__u32 zero;
};

/*
 * REVOKE: importers of door 1 lose the pages, those that can be told; no new one gets them; mappings of door 2 fault with
 * SIGBUS. VFIO keeps what it has: it cannot be told. The lend itself ends as always.
 *
 * EBADF, EINVAL as UNTIL
 * EINTR       a signal, while it waited for an importer; each has been told
 * EOPNOTSUPP  this kernel cannot (before 7.2)
 */
struct longpin_lend_revoke {
	__u32 size;
	__s32 dmabuf;
};

/* INFO: what this module, on this kernel, can. The module writes as many bytes as `size` says, zeroes behind what it has. */
#define LONGPIN_CAN_REGISTER	(1U << 0)	/* door3=1, and no self-test has failed: one runs when the first such lend arms the probe */
#define LONGPIN_CAN_REVOKE	(1U << 1)
#define LONGPIN_CAN_SEE_BOUNCE	(1U << 2)	/* door 1 refuses devices that would get bounce buffers */
#define LONGPIN_WAITS_UNMAPPED	(1U << 3)	/* the file system waits for the pins without a mapping of the file (6.15) */

struct longpin_lend_info {
	__u32 size;
	__u32 version;		/* LONGPIN_LEND_VERSION */
	__u32 can;
	__u32 zero;
};

#define LONGPIN_IOC_LEND	_IO('L', 0x10)	/* struct longpin_lend */
#define LONGPIN_IOC_UNTIL	_IO('L', 0x11)	/* struct longpin_lend_until */
#define LONGPIN_IOC_FLAG	_IO('L', 0x12)	/* struct longpin_lend_flag */
#define LONGPIN_IOC_LIST	_IO('L', 0x13)	/* struct longpin_lend_list */
#define LONGPIN_IOC_REVOKE	_IO('L', 0x14)	/* struct longpin_lend_revoke */
#define LONGPIN_IOC_INFO	_IO('L', 0x15)	/* struct longpin_lend_info */

#endif
