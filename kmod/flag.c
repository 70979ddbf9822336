// SPDX-License-Identifier: GPL-2.0-only
/* S_SWAPFILE on a file, as swapon(2) sets it, for as long as a descriptor is open. */
#include "module.h"

#include <linux/anon_inodes.h>

struct flag {
	struct entry entry;
	bool set;
	struct work_struct end;
};

static struct workqueue_struct *flag_ends;

/*
 * Not in the caller of the last close: it would wait there for a truncate that has the lock and waits for the pins of a lend,
 * whose dma-buf may be the next file which that caller closes. For the same reason not on the workqueue where lends end.
 */
static void end_flag(struct work_struct *work)
{
	struct flag *flag = container_of(work, struct flag, end);
	struct inode *inode = file_inode(flag->entry.file);

	if (flag->set) {
		inode_lock(inode);
		inode_set_flags(inode, 0, S_SWAPFILE);
		inode_unlock(inode);
	}
	put_now(flag->entry.file);
	unlist_entry(&flag->entry);
	kfree(flag);
	module_put(THIS_MODULE);
}

static int flag_release(struct inode *inode, struct file *file)
{
	struct flag *flag = file->private_data;

	__module_get(THIS_MODULE);
	queue_work(flag_ends, &flag->end);
	return 0;
}

static const struct file_operations flag_ops = { .owner = THIS_MODULE, .release = flag_release };

/* By name: ext4's driver mounts ext2 and ext3, too, and others have its magic number. */
bool is_ext4_or_xfs(const struct inode *inode)
{
	const char *type = inode->i_sb->s_type->name;

	return !strcmp(type, "ext4") || !strcmp(type, "xfs");
}

static int check_file(struct file *file)
{
	if (!S_ISREG(file_inode(file)->i_mode))
		return -EINVAL;
	if (!(file->f_mode & FMODE_WRITE))
		return -EACCES;
	return is_ext4_or_xfs(file_inode(file)) ? 0 : -EOPNOTSUPP;
}

/* Killable: a truncate may have the lock and wait for pins of the caller's own lend. */
static int set_flag(struct flag *flag)
{
	struct inode *inode = file_inode(flag->entry.file);
	int err = down_write_killable(&inode->i_rwsem);

	if (err)
		return err;
	if (IS_SWAPFILE(inode))
		err = -EBUSY;
	else
		inode_set_flags(inode, S_SWAPFILE, S_SWAPFILE);
	flag->set = !err;
	inode_unlock(inode);
	return err;
}

static struct flag *new_flag(struct file *file)
{
	struct flag *flag = kzalloc(sizeof(*flag), GFP_KERNEL_ACCOUNT);

	if (flag) {
		INIT_WORK(&flag->end, end_flag);
		flag->entry.file = get_file(file);
	}
	return flag;
}

static long open_flag(struct file *file)
{
	struct flag *flag = new_flag(file);
	struct file *holder;
	int fd, err;

	if (!flag)
		return -ENOMEM;
	holder = anon_inode_getfile("[longpin-flag]", &flag_ops, flag, O_RDONLY);
	if (IS_ERR(holder)) {
		fput(file);
		kfree(flag);
		return PTR_ERR(holder);
	}
	/* From here on the holder's release ends it. */
	fd = get_unused_fd_flags(O_CLOEXEC);
	err = fd < 0 ? fd : set_flag(flag);
	if (!err) {
		list_entry_of(&flag->entry, false);
		fd_install(fd, holder);
		return fd;
	}
	if (fd >= 0)
		put_unused_fd(fd);
	fput(holder);
	return err;
}

long flag_ioctl(const void __user *arg)
{
	struct longpin_lend_flag request = {};
	struct file *file;
	long result = copy_request(&request, sizeof(request), sizeof(request), arg);

	if (result)
		return result;
	file = fget(request.file);
	if (!file)
		return -EBADF;
	result = check_file(file);
	if (!result)
		result = open_flag(file);
	fput(file);
	return result;
}

int flag_init(void)
{
	flag_ends = alloc_workqueue("longpin-flag", WQ_UNBOUND, 0);
	return flag_ends ? 0 : -ENOMEM;
}

void flag_exit(void)
{
	destroy_workqueue(flag_ends);
}
