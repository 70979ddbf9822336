/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the module's files share.
 *
 * A lend is pinned (pages.c), entered with the ranges of its file (places.c), wrapped in a dma-buf (dmabuf.c). The last
 * close of the dma-buf starts its end (lend.c): a worker waits for the groups (groups.c) and for pins of others, then
 * unpins. Locks, none taken inside another but where said: entries_lock (list.c), groups_lock (groups.c), arm_lock
 * (door3.c; the mmap_lock inside it), places_lock (a spinlock, innermost), a lend's revoke_lock (inside the mmap_lock).
 */
#ifndef LONGPIN_MODULE_H
#define LONGPIN_MODULE_H

#define pr_fmt(fmt) "longpin-lend: " fmt

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#include "longpin_lend.h"

#define SINCE(major, minor) (LINUX_VERSION_CODE >= KERNEL_VERSION(major, minor, 0))

struct dev_pagemap;
struct dma_buf;
struct group;

/* A row of LIST: of a lend or of a flag. */
struct entry {
	struct list_head node;
	u64 id, since, inode;
	u32 dev;
	struct file *file;	/* a reference */
	struct pid *pid;
	char command[TASK_COMM_LEN];
	bool is_lend, ending;	/* ending: under the list's lock */
	atomic_t lookers;	/* LIST looks at it, without a lock */
};

/* Pages of a lend that lie one after the other in memory. */
struct run {
	unsigned long at, pfn, nr;	/* at: of the lend's first page */
	struct dev_pagemap *device;	/* a reference */
};

struct lend {
	struct entry entry;
	struct file *token;
	struct file *window;	/* what mappings of the dma-buf are mappings of: dmabuf.c */
	struct mm_struct *mm;	/* who lent: grabbed, so that no other gets its address */
	struct address_space *mapping;
	struct interval_tree_node range;	/* pages of the file; in the tree of its place */
	struct place *place;
	unsigned long nr, pinned, accounted;
	u32 flags;

	struct run *runs;
	unsigned int run_count, run_room;

	struct group *groups[LONGPIN_LEND_GROUPS];
	unsigned int group_count;

	struct dma_buf *buf;	/* valid while it is open */
	bool open;		/* places_lock */
	bool in_test;		/* door 3's self-test: not lent for a moment */
	bool registers;		/* its process may register: door 3 counts it */
	struct hlist_node by_mm;
	struct rw_semaphore revoke_lock;
	bool revoked;
	atomic_t importers, mappings;

	struct delayed_work end;
	unsigned int wait_ms;
	unsigned long used_at;	/* where a pin of somebody else was found last */
	struct rcu_head rcu;
};

static inline bool may_write(const struct lend *l)
{
	return l->flags & LONGPIN_LEND_WRITE;
}

/* main.c: copies a structure of which the program knows as much as it says. */
int copy_request(void *to, size_t known, size_t least, const void __user *from);
void put_now(struct file *file);

/* lend.c */
long lend_ioctl(const void __user *arg);
void begin_end(struct lend *l);
void give_up(struct lend *l);
int lend_init(void);
void lend_exit(void);

/* pages.c */
int pin_pages(unsigned long va, int nr, unsigned int flags, struct page **pages);
int pin_range(struct lend *l);
void unpin_range(struct lend *l);
unsigned long pfn_at(const struct lend *l, unsigned long i);
bool place_of_page(struct page *page, struct address_space **mapping, pgoff_t *index);
bool is_used(struct lend *l);

/* places.c */
int enter_place(struct lend *l);
void leave_place(struct lend *l);
void close_lend(struct lend *l);
struct census {
	unsigned long lends, changes;
	pgoff_t last;
};
void count_page(const struct lend *l, pgoff_t index, struct census *census);
void count_pages(const struct lend *l, pgoff_t first, pgoff_t last, struct census *census);
bool is_true_still(const struct lend *l, const struct census *census);
bool is_lent_page(struct page *page, bool write);
void set_in_test(struct lend *l, bool in_test);

/* groups.c */
int add_group(struct lend *l, int fd);
bool groups_are_gone(struct lend *l);
void drop_groups(struct lend *l);
unsigned int count_groups(const struct lend *l);

/* dmabuf.c */
int open_window(struct lend *l);
int export_lend(struct lend *l);
long until_ioctl(const void __user *arg);
long revoke_ioctl(const void __user *arg);
u32 count_importers(const struct lend *l);

/* door3.c */
int arm(struct lend *l);
void disarm(struct lend *l);
bool can_register(void);
void door3_exit(void);

/* flag.c */
bool is_ext4_or_xfs(const struct inode *inode);
long flag_ioctl(const void __user *arg);
int flag_init(void);
void flag_exit(void);

/* list.c */
void list_entry_of(struct entry *entry, bool is_lend);
void end_entry(struct entry *entry);
void unlist_entry(struct entry *entry);
long list_ioctl(const void __user *arg);

#endif
