/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Made from crates/longpin-linux/src/commands.rs by `LONGPIN_WRITE_DOCS=1 cargo test -p longpin-bpf documents`: which
 * commands take pages or blocks from a file, and in what words an active swap file refuses them.
 */
/* clang-format off */
#define FS_IOC_SETFLAGS 0x6602
#define FS_IOC_FSSETXATTR 0x5820
#define FS_IOC_REMOVE_ENCRYPTION_KEY 0x6618
#define FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS 0x6619
#define FS_IOC_ENABLE_VERITY 0x6685
#define EXT4_IOC_MOVE_EXT 0x660f
#define EXT4_IOC_SWAP_BOOT 0x6611
#define XFS_IOC_SWAPEXT 0x586d
#define XFS_IOC_SCRUB_METADATA 0x583c
#define XFS_IOC_SCRUBV_METADATA 0x5840
#define F2FS_IOC_START_ATOMIC_WRITE 0xf501
#define F2FS_IOC_START_ATOMIC_REPLACE 0xf519
#define F2FS_IOC_ABORT_ATOMIC_WRITE 0xf505
#define F2FS_IOC_COMMIT_ATOMIC_WRITE 0xf502
#define F2FS_IOC_DEFRAGMENT 0xf508
#define F2FS_IOC_SEC_TRIM_FILE 0xf514
#define F2FS_IOC_SET_PIN_FILE 0xf50d
#define F2FS_IOC_MOVE_RANGE 0xf509
#define F2FS_IOC_GARBAGE_COLLECT_RANGE 0xf50b
#define F2FS_IOC_FLUSH_DEVICE 0xf50a
#define F2FS_IOC_RESIZE_FS 0xf510
#define BTRFS_IOC_DEFRAG 0x9402
#define BTRFS_IOC_DEFRAG_RANGE 0x9410
#define BTRFS_IOC_SNAP_CREATE 0x9401
#define BTRFS_IOC_SNAP_CREATE_V2 0x9417
#define BTRFS_IOC_SNAP_DESTROY 0x940f
#define BTRFS_IOC_SNAP_DESTROY_V2 0x943f
#define BTRFS_IOC_RESIZE 0x9403
#define BTRFS_IOC_RM_DEV 0x940b
#define BTRFS_IOC_RM_DEV_V2 0x943a
#define BTRFS_IOC_DEV_REPLACE 0x9435
#define BTRFS_IOC_BALANCE 0x940c
#define BTRFS_IOC_BALANCE_V2 0x9420
#define BTRFS_IOC_ENCODED_WRITE 0x9440
#define LOOP_SET_FD 0x4c00
#define LOOP_CHANGE_FD 0x4c06
#define LOOP_CONFIGURE 0x4c0a
#define SET_BITMAP_FILE 0x4004092b
#define UDMABUF_CREATE 0x40187542
#define UDMABUF_CREATE_LIST 0x40087543

static __always_inline struct command command_of(u32 number)
{
	struct command found = {};

	switch (number) {
	case FS_IOC_SETFLAGS:
	case FS_IOC_FSSETXATTR:
		found = (struct command){ .magic = 0x0, .layout = LAYOUT_FLAGS };
		break;
	case FS_IOC_REMOVE_ENCRYPTION_KEY:
	case FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS:
		found = (struct command){ .magic = 0x0, .layout = LAYOUT_KEY };
		break;
	case FS_IOC_ENABLE_VERITY:
		found = (struct command){ .magic = 0x0, .layout = LAYOUT_NO, .scope = ONE_FILE, .answer = -ETXTBSY };
		break;
	case EXT4_IOC_MOVE_EXT:
		found = (struct command){ .magic = 0xef53, .layout = LAYOUT_FILE_SYSTEM, .scope = FILE_SYSTEM, .answer = -ETXTBSY };
		break;
	case EXT4_IOC_SWAP_BOOT:
		found = (struct command){ .magic = 0xef53, .layout = LAYOUT_FILE, .scope = ONE_FILE, .answer = -EINVAL };
		break;
	case XFS_IOC_SWAPEXT:
		found = (struct command){ .magic = 0x58465342, .layout = LAYOUT_FILE_SYSTEM, .scope = FILE_SYSTEM, .answer = -EINVAL };
		break;
	case XFS_IOC_SCRUB_METADATA:
	case XFS_IOC_SCRUBV_METADATA:
		found = (struct command){ .magic = 0x58465342, .layout = LAYOUT_SCRUB };
		break;
	case F2FS_IOC_START_ATOMIC_WRITE:
	case F2FS_IOC_START_ATOMIC_REPLACE:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_FILE, .scope = ONE_FILE, .answer = -EINVAL };
		break;
	case F2FS_IOC_ABORT_ATOMIC_WRITE:
	case F2FS_IOC_SEC_TRIM_FILE:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_FILE, .scope = ONE_FILE, .answer = -ETXTBSY };
		break;
	case F2FS_IOC_COMMIT_ATOMIC_WRITE:
	case F2FS_IOC_SET_PIN_FILE:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_NO, .scope = ONE_FILE, .answer = -ETXTBSY };
		break;
	case F2FS_IOC_DEFRAGMENT:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_NO, .scope = ONE_FILE, .answer = -EINVAL };
		break;
	case F2FS_IOC_MOVE_RANGE:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_FILE_SYSTEM, .scope = FILE_SYSTEM, .answer = -EOPNOTSUPP };
		break;
	case F2FS_IOC_GARBAGE_COLLECT_RANGE:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_NO, .scope = FILE_SYSTEM, .answer = -EAGAIN };
		break;
	case F2FS_IOC_FLUSH_DEVICE:
	case F2FS_IOC_RESIZE_FS:
		found = (struct command){ .magic = 0xf2f52010, .layout = LAYOUT_NO, .scope = FILE_SYSTEM, .answer = -ETXTBSY };
		break;
	case BTRFS_IOC_DEFRAG:
	case BTRFS_IOC_DEFRAG_RANGE:
		found = (struct command){ .magic = 0x9123683e, .layout = LAYOUT_NO, .scope = ONE_FILE, .answer = -ETXTBSY };
		break;
	case BTRFS_IOC_SNAP_CREATE:
	case BTRFS_IOC_SNAP_CREATE_V2:
		found = (struct command){ .magic = 0x9123683e, .layout = LAYOUT_NO, .scope = ONE_SUBVOLUME, .answer = -ETXTBSY };
		break;
	case BTRFS_IOC_SNAP_DESTROY:
	case BTRFS_IOC_SNAP_DESTROY_V2:
		found = (struct command){ .magic = 0x9123683e, .layout = LAYOUT_NO, .scope = FILE_SYSTEM, .answer = -EPERM };
		break;
	case BTRFS_IOC_RESIZE:
	case BTRFS_IOC_RM_DEV:
	case BTRFS_IOC_RM_DEV_V2:
	case BTRFS_IOC_DEV_REPLACE:
	case BTRFS_IOC_BALANCE:
	case BTRFS_IOC_BALANCE_V2:
		found = (struct command){ .magic = 0x9123683e, .layout = LAYOUT_NO, .scope = FILE_SYSTEM, .answer = -ETXTBSY };
		break;
	}
	return found;
}

/* The major number of the devices that know it; 0: no driver's. */
static __always_inline u32 driver_of(u32 number)
{
	switch (number) {
	case LOOP_SET_FD:
	case LOOP_CHANGE_FD:
	case LOOP_CONFIGURE:
		return 7;
	case SET_BITMAP_FILE:
		return 9;
	case UDMABUF_CREATE:
	case UDMABUF_CREATE_LIST:
		return 10;
	}
	return 0;
}
