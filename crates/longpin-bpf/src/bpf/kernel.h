/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's types, as far as the guard reads them. Only the fields used are named: CO-RE finds
 * their offsets in the running kernel's BTF, so one object serves every kernel row.
 */
#ifndef LONGPIN_KERNEL_H
#define LONGPIN_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <stdbool.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct xarray {
	void *xa_head;
} KERNEL_TYPE;

struct xa_node {
	unsigned char shift;
	void *slots[64];
} KERNEL_TYPE;

struct inode;

typedef struct {
	int counter;
} atomic_t;

struct rb_node {
	unsigned long __rb_parent_color;
	struct rb_node *rb_right;
	struct rb_node *rb_left;
} KERNEL_TYPE;

struct rb_root {
	struct rb_node *rb_node;
} KERNEL_TYPE;

struct rb_root_cached {
	struct rb_root rb_root;
} KERNEL_TYPE;

struct address_space {
	struct inode *host;
	struct xarray i_pages;
	atomic_t i_mmap_writable;
	struct rb_root_cached i_mmap;
} KERNEL_TYPE;

struct list_head {
	struct list_head *next;
} KERNEL_TYPE;

struct hlist_node {
	struct hlist_node *next;
} KERNEL_TYPE;

struct hlist_head {
	struct hlist_node *first;
} KERNEL_TYPE;

struct user_namespace;

/* Since 6.17, before by another name. */
struct file_kattr {
	u32 flags;
	u32 fsx_xflags;
} KERNEL_TYPE;

struct quota_info {
	struct inode *files[3];
} KERNEL_TYPE;

struct super_block {
	u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
	void *s_fs_info;
	struct list_head s_mounts;
	struct quota_info s_dquot;
	struct list_head s_inodes;
} KERNEL_TYPE;

struct vfsmount {
	struct super_block *mnt_sb;
} KERNEL_TYPE;

/* Since 6.18 the mounts of a file system are a list of their own kind. */
struct mount {
	struct mount *mnt_next_for_sb;
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct mnt_namespace *mnt_ns;
	struct list_head mnt_mounts;
	struct list_head mnt_child;
	struct hlist_node mnt_mp_list;
	struct vfsmount mnt;
} KERNEL_TYPE;

struct mount___list {
	struct list_head mnt_instance;
} KERNEL_TYPE;

struct super_block___mount {
	struct mount *s_mounts;
} KERNEL_TYPE;

/* One that only a descriptor leads to has the number 0. */
struct mnt_namespace {
	u64 seq;
} KERNEL_TYPE;

/* Since 6.19 or so it says so. */
struct mnt_namespace___anon {
	bool is_anon;
} KERNEL_TYPE;

struct mountpoint {
	struct hlist_node m_hash;
	struct dentry *m_dentry;
	struct hlist_head m_list;
} KERNEL_TYPE;

struct fs_context {
	struct dentry *root;
	unsigned int sb_flags;
} KERNEL_TYPE;

typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	u32 val;
} kgid_t;

struct uid_gid_extent {
	u32 first;
	u32 lower_first;
	u32 count;
} KERNEL_TYPE;

struct uid_gid_map {
	u32 nr_extents;
	struct uid_gid_extent extent[5];
} KERNEL_TYPE;

struct user_namespace {
	struct uid_gid_map uid_map;
	struct uid_gid_map gid_map;
	int level;
} KERNEL_TYPE;

struct group_info {
	int ngroups;
	kgid_t gid[0];
} KERNEL_TYPE;

/* One 64-bit number, or two words that read as one. */
typedef struct {
	u64 val;
} kernel_cap_t;

struct cred {
	kuid_t fsuid;
	kgid_t fsgid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
	struct group_info *group_info;
} KERNEL_TYPE;

struct inode {
	u16 i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	void *i_acl;
	struct super_block *i_sb;
	struct address_space *i_mapping;
	unsigned long i_ino;
	unsigned int i_flags;
	unsigned int i_nlink;
	s64 i_size;
	u32 i_generation;
	u32 i_rdev;
	struct hlist_head i_dentry;
	struct list_head i_sb_list;
	atomic_t i_dio_count;
	atomic_t i_writecount;
} KERNEL_TYPE;

struct qstr {
	const unsigned char *name;
} KERNEL_TYPE;

struct dentry {
	unsigned int d_flags;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	struct hlist_node d_alias;
} KERNEL_TYPE;

/* Before 7.x the alias link sits in a named union. */
struct dentry___d_u {
	union {
		struct hlist_node d_alias;
	} d_u;
} KERNEL_TYPE;

struct iattr {
	unsigned int ia_valid;
	s64 ia_size;
} KERNEL_TYPE;

struct file_operations {
	void *remap_file_range;
} KERNEL_TYPE;

struct file {
	struct address_space *f_mapping;
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
	const struct file_operations *f_op;
	void *private_data;
} KERNEL_TYPE;

/*
 * A folio overlays its first pages: `mapping` and `_refcount` are the head page's. Its flags are the
 * first word, a number on older kernels and a structure on newer ones.
 */
struct folio {
	struct address_space *mapping;
	unsigned long index;
	atomic_t _refcount;
	atomic_t _pincount;
	unsigned int _nr_pages;
} KERNEL_TYPE;

/* Before 6.14. */
struct folio___folio_nr_pages {
	unsigned int _folio_nr_pages;
} KERNEL_TYPE;

struct page {
	atomic_t _refcount;
	unsigned int page_type;
	unsigned long private;
} KERNEL_TYPE;

/* The word that makes a tail page name its head: renamed in 7.x, same place. */
struct page___compound_info {
	unsigned long compound_info;
} KERNEL_TYPE;

struct page___compound_head {
	unsigned long compound_head;
} KERNEL_TYPE;

enum pageflags {
	PG_head,
};

struct hstate {
	unsigned int order;
} KERNEL_TYPE;

struct hugetlbfs_sb_info {
	struct hstate *hstate;
} KERNEL_TYPE;

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
	struct mm_struct *vm_mm;
	struct {
		struct rb_node rb;
	} shared;
} KERNEL_TYPE;

struct thread_info {
	u32 status;
} KERNEL_TYPE;

struct mm_struct;

struct signal_struct {
	struct list_head thread_head;
} KERNEL_TYPE;

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
	int pid;
	int tgid;
	struct mm_struct *mm;
	u64 start_boottime;
	struct task_struct *group_leader;
	const struct cred *cred;
	struct files_struct *files;
	struct list_head tasks;
	struct list_head thread_node;
	struct signal_struct *signal;
	char comm[16];
} KERNEL_TYPE;

struct interval_tree_node {
	struct rb_node rb;
	unsigned long start;
	unsigned long last;
	unsigned long __subtree_last;
} KERNEL_TYPE;

struct mmu_interval_notifier_ops {
	void *invalidate;
} KERNEL_TYPE;

/* Since 7.x a driver may have this instead. */
struct mmu_interval_notifier_ops___start {
	void *invalidate_start;
} KERNEL_TYPE;

struct mmu_interval_notifier {
	struct interval_tree_node interval_tree;
	const struct mmu_interval_notifier_ops *ops;
	struct mm_struct *mm;
} KERNEL_TYPE;

struct mmu_notifier_subscriptions {
	unsigned long invalidate_seq;
	struct rb_root_cached itree;
} KERNEL_TYPE;

/* The same numbers in all kernels: for people, told by name. */
enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP,
};

struct mmu_notifier_range {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	enum mmu_notifier_event event;
} KERNEL_TYPE;

struct maple_tree {
	void *ma_root;
} KERNEL_TYPE;

struct maple_range_64 {
	unsigned long pivot[15];
	void *slot[16];
} KERNEL_TYPE;

struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
} KERNEL_TYPE;

struct mm_struct {
	struct maple_tree mm_mt;
	atomic_t mm_users;
	struct task_struct *owner;
	struct mmu_notifier_subscriptions *notifier_subscriptions;
} KERNEL_TYPE;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} KERNEL_TYPE;

struct files_struct {
	struct fdtable *fdt;
} KERNEL_TYPE;

struct linux_binprm {
	struct file *file;
} KERNEL_TYPE;

struct bpf_prog_aux {
	u32 id;
} KERNEL_TYPE;

struct bpf_prog {
	struct bpf_prog_aux *aux;
	void *stats;
} KERNEL_TYPE;

typedef struct {
	u64 v;
} u64_stats_t;

struct bpf_prog_stats {
	u64_stats_t misses;
} KERNEL_TYPE;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL_TYPE;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} KERNEL_TYPE;

struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
} KERNEL_TYPE;

/* Any structure that begins with a 64-bit number: the type under which `load64` reads. */
struct timespec64 {
	s64 tv_sec;
} KERNEL_TYPE;

#define ATTR_SIZE (1 << 3)
#define MAY_WRITE 2
#define MAY_READ 4
#define VM_WRITE 2
#define VM_SHARED 8
#define VM_MAYWRITE 0x20
#define SB_RDONLY 1
#define FMODE_WRITE 2
#define FMODE_WRITER 0x10000 /* counted in i_writecount */
#define S_SWAPFILE (1 << 8)
#define PF_KTHREAD 0x00200000
#define PF_IO_WORKER 0x00000010
#define S_IFMT 00170000
#define S_IFREG 0100000
#define S_DAX (1 << 13)
#define S_ENCRYPTED (1 << 14)
#define HUGETLBFS_MAGIC 0x958458f6
#define TMPFS_MAGIC 0x01021994
#define BTRFS_MAGIC 0x9123683e
#define XFS_MAGIC 0x58465342
#define EXT4_MAGIC 0xef53
#define FUSE_MAGIC 0x65735546
#define OVERLAYFS_MAGIC 0x794c7630
#define RENAME_EXCHANGE 2
#define PROT_WRITE 2
#define MAP_SHARED 1 /* set in MAP_SHARED_VALIDATE, too */
#define EPERM 1
#define MAX_ERRNO 4095
#define ENOENT 2
#define EINVAL 22
#define ENOSPC 28
#define ETXTBSY 26
#define EBUSY 16
#define EAGAIN 11
#define EOPNOTSUPP 95
#define SIGKILL 9

#define FALLOC_FL_KEEP_SIZE 0x01
#define FALLOC_FL_PUNCH_HOLE 0x02
#define FALLOC_FL_ZERO_RANGE 0x10
#define FALLOC_FL_UNSHARE_RANGE 0x40
#define FALLOC_FL_WRITE_ZEROES 0x80

#endif
