// SPDX-License-Identifier: GPL-2.0-only
/* A lend's life: what is asked, what is checked, and its end, which comes when nobody can reach the pages any more. */
#include "module.h"

#include <linux/cc_platform.h>
#include <linux/falloc.h>
#include <linux/kdev_t.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#define FIRST_WAIT_MS 20U
#define LAST_WAIT_MS 1000U

static struct workqueue_struct *ends;

/*
 * Somebody holds the file as if the kernel swapped to it: it refuses a punch of any range. This one ends behind the
 * largest size of a file, so that a file which nobody holds is not changed: EFBIG comes before the file system is asked.
 */
static bool is_held(struct file *file)
{
	loff_t start = round_down(file_inode(file)->i_sb->s_maxbytes, PAGE_SIZE);

	return vfs_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, 2 * PAGE_SIZE) == -ETXTBSY;
}

/* The library writes into a token's name whose it is. One without such a name (a record of a swap header) may be any. */
static bool is_other_files(struct file *token, struct inode *inode)
{
	static const char begin[] = "memfd:longpin-hold:";
	char name[80], wanted[80];

	snprintf(name, sizeof(name), "%pD", token);
	if (strncmp(name, begin, sizeof(begin) - 1))
		return false;
	snprintf(wanted, sizeof(wanted), "%s%x:%llx", begin, new_encode_dev(inode->i_sb->s_dev), (u64)inode->i_ino);
	return strcmp(name, wanted);
}

/*
 * A token that can hold descriptors (a socket, a ring) may hold the dma-buf, which holds the token: for ever. Some kernels make
 * regular files of anonymous ones. Of the kernel's own mounts only that of memfds has files of bytes alone.
 */
static bool may_hold_descriptors(const struct inode *inode)
{
	if (!S_ISREG(inode->i_mode))
		return true;
	return (inode->i_sb->s_flags & SB_NOUSER) && strcmp(inode->i_sb->s_type->name, "tmpfs");
}

static int check_files(const struct lend *l)
{
	struct inode *inode = file_inode(l->entry.file);

	/* Others are not known to wait for a pin before they free a block. */
	if (!S_ISREG(inode->i_mode) || !IS_DAX(inode) || !is_ext4_or_xfs(inode))
		return -EOPNOTSUPP;
	if ((l->entry.file->f_mode & (FMODE_READ | FMODE_WRITE)) != (FMODE_READ | FMODE_WRITE))
		return -EACCES;
	if (may_hold_descriptors(file_inode(l->token)) || file_inode(l->token) == inode)
		return -EINVAL;
	return is_other_files(l->token, inode) ? -EXDEV : 0;
}

static int check_range(struct lend *l, u64 offset, u64 length)
{
	u64 size = i_size_read(file_inode(l->entry.file)), end;

	if (!length || !PAGE_ALIGNED(offset | length) || check_add_overflow(offset, length, &end))
		return -EINVAL;
	/* The last page may be in the file for a part only. */
	if (end > MAX_LFS_FILESIZE || end - PAGE_SIZE >= size)
		return -EINVAL;
	l->nr = length >> PAGE_SHIFT;
	l->range.start = offset >> PAGE_SHIFT;
	l->range.last = l->range.start + l->nr - 1;
	return 0;
}

static int add_groups(struct lend *l, const struct longpin_lend *request)
{
	s32 fds[LONGPIN_LEND_GROUPS];
	unsigned int i;
	int err = 0;

	if (request->group_count > LONGPIN_LEND_GROUPS)
		return -EINVAL;
	if (copy_from_user(fds, u64_to_user_ptr(request->groups), request->group_count * sizeof(*fds)))
		return -EFAULT;
	for (i = 0; i < request->group_count && !err; i++)
		err = add_group(l, fds[i]);
	return err;
}

static int account(struct lend *l)
{
	int err = account_locked_vm(l->mm, l->nr, true);

	if (!err)
		l->accounted = l->nr;
	return err;
}

/* The process may have ended: then nobody counts any more. */
static void unaccount(struct lend *l)
{
	if (!l->accounted || !mmget_not_zero(l->mm))
		return;
	account_locked_vm(l->mm, l->accounted, false);
	mmput(l->mm);
}

/* What is told of the lend, and all that can fail before anybody can see it. */
static int prepare(struct lend *l, const struct longpin_lend *request)
{
	int err;

	l->flags = request->flags;
	l->entry.file = fget(request->file);
	l->token = fget(request->token);
	if (!l->entry.file || !l->token)
		return -EBADF;
	err = check_files(l);
	if (!err)
		err = check_range(l, request->offset, request->length);
	if (err)
		return err;
	if (!is_held(l->entry.file))
		return -EPERM;
	l->mapping = l->entry.file->f_mapping;
	err = add_groups(l, request);
	if (!err)
		err = account(l);
	if (!err)
		err = pin_range(l);
	if (!err)
		err = open_window(l);
	/* The hold may have ended while it pinned; from here on the token is kept. */
	if (!err && !is_held(l->entry.file))
		err = -EPERM;
	return err;
}

static void free_lend(struct lend *l)
{
	end_entry(&l->entry);
	leave_place(l);
	/* Pins first: a truncate may wait for them that has what the rest needs. The token last: it ends the hold. */
	unpin_range(l);
	unaccount(l);
	drop_groups(l);
	put_now(l->window);
	put_now(l->entry.file);
	put_now(l->token);
	unlist_entry(&l->entry);
	mmdrop(l->mm);
	kfree_rcu(l, rcu);
}

/* Looks again and again, seldom if a look takes long. */
static void end_lend(struct work_struct *work)
{
	struct lend *l = container_of(to_delayed_work(work), struct lend, end);
	unsigned long begin = jiffies;
	unsigned int took;

	disarm(l);
	if (groups_are_gone(l) && !is_used(l)) {
		free_lend(l);
		/* The workqueue is destroyed before the module goes: this function has returned then. */
		module_put(THIS_MODULE);
		return;
	}
	took = jiffies_to_msecs(jiffies - begin);
	queue_delayed_work(ends, &l->end, msecs_to_jiffies(max(l->wait_ms, 20 * min(took, 10000U))));
	l->wait_ms = min(2 * l->wait_ms, LAST_WAIT_MS);
}

/* May not sleep: the dma-buf's last close is the caller. */
void begin_end(struct lend *l)
{
	close_lend(l);
	__module_get(THIS_MODULE);
	queue_delayed_work(ends, &l->end, 0);
}

/* Nobody has got the dma-buf, so no group's devices have the pages. */
void give_up(struct lend *l)
{
	drop_groups(l);
	begin_end(l);
}

/* From its entry on others may have its pages, by door 3: if it fails then, it ends as any lend does. */
static long lend_prepared(struct lend *l)
{
	int err = enter_place(l);

	if (err) {
		free_lend(l);
		return err;
	}
	list_entry_of(&l->entry, true);
	err = arm(l);
	if (!err)
		return export_lend(l);
	give_up(l);
	return err;
}

long lend_ioctl(const void __user *arg)
{
	struct longpin_lend request = {};
	struct lend *l;
	int err = copy_request(&request, sizeof(request), sizeof(request), arg);

	if (err)
		return err;
	if (request.zero || (request.flags & ~(LONGPIN_LEND_WRITE | LONGPIN_LEND_REGISTER)))
		return -EINVAL;
	/* All memory a device sees there is a bounce buffer. */
	if (cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT))
		return -EOPNOTSUPP;
	if ((request.flags & LONGPIN_LEND_REGISTER) && !can_register())
		return -ENXIO;
	l = kzalloc(sizeof(*l), GFP_KERNEL_ACCOUNT);
	if (!l)
		return -ENOMEM;
	INIT_LIST_HEAD(&l->entry.node);
	INIT_DELAYED_WORK(&l->end, end_lend);
	init_rwsem(&l->revoke_lock);
	l->wait_ms = FIRST_WAIT_MS;
	l->mm = current->mm;
	mmgrab(l->mm);
	err = prepare(l, &request);
	if (err) {
		free_lend(l);
		return err;
	}
	return lend_prepared(l);
}

int lend_init(void)
{
	ends = alloc_workqueue("longpin-lend", WQ_UNBOUND, 0);
	return ends ? 0 : -ENOMEM;
}

void lend_exit(void)
{
	destroy_workqueue(ends);
}
