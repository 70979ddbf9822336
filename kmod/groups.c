// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO keeps frames without references: the pages stay until everybody else has closed the group. Devices keep the group's
 * file open, so that its last close comes after the last device's, and unmaps what its container has mapped.
 *
 * Several lends may name one group. It is open once for all of them: else each would wait for the other's reference.
 */
#include "module.h"

#include <linux/vfio.h>

struct group {
	struct list_head node;
	struct file *file;	/* NULL: everybody else has closed it, and so have we */
	unsigned int lends;
};

static LIST_HEAD(groups);
static DEFINE_MUTEX(groups_lock);

/* vfio.ko need not be there: who has a group open has loaded it. */
static bool is_vfio_group(struct file *file)
{
	bool (*is_group)(struct file *file) = symbol_get(vfio_file_is_group);
	bool yes;

	if (!is_group)
		return false;
	yes = is_group(file);
	symbol_put(vfio_file_is_group);
	return yes;
}

/* The file's reference is taken over, or dropped. */
static struct group *get_group(struct file *file)
{
	struct group *group;

	list_for_each_entry(group, &groups, node) {
		if (group->file == file) {
			fput(file);
			group->lends++;
			return group;
		}
	}
	group = kzalloc(sizeof(*group), GFP_KERNEL_ACCOUNT);
	if (!group) {
		fput(file);
		return NULL;
	}
	group->file = file;
	group->lends = 1;
	list_add(&group->node, &groups);
	return group;
}

int add_group(struct lend *l, int fd)
{
	struct file *file = fget(fd);
	struct group *group;
	unsigned int i;
	int err = 0;

	if (!file)
		return -EBADF;
	if (!is_vfio_group(file)) {
		fput(file);
		return -ENODEV;
	}
	mutex_lock(&groups_lock);
	for (i = 0; i < l->group_count && l->groups[i]->file != file; i++)
		;
	if (i < l->group_count) {
		fput(file);
		goto unlock;
	}
	if (l->group_count == LONGPIN_LEND_GROUPS) {
		fput(file);
		err = -ENOSPC;
		goto unlock;
	}
	group = get_group(file);
	if (!group) {
		err = -ENOMEM;
		goto unlock;
	}
	l->groups[l->group_count] = group;
	/* mmap asks without the lock. */
	smp_store_release(&l->group_count, l->group_count + 1);
unlock:
	mutex_unlock(&groups_lock);
	return err;
}

/*
 * Nobody else has it open, and nobody can get it any more: no descriptor has it, and who found it in a table just before
 * it was closed there has either taken his reference or seen that it is gone, after a grace period.
 */
static bool is_ours_alone(struct file *file)
{
	if (file_count(file) > 1)
		return false;
	synchronize_rcu();
	return file_count(file) == 1;
}

/* Under the lock: who names it once more has it open, and then it is not ours alone. */
static bool is_gone(struct group *group)
{
	if (group->file && is_ours_alone(group->file)) {
		__fput_sync(group->file);	/* unmaps what VFIO has mapped */
		group->file = NULL;
	}
	return !group->file;
}

bool groups_are_gone(struct lend *l)
{
	bool gone = true;
	unsigned int i;

	mutex_lock(&groups_lock);
	for (i = 0; i < l->group_count; i++)
		gone &= is_gone(l->groups[i]);
	mutex_unlock(&groups_lock);
	return gone;
}

void drop_groups(struct lend *l)
{
	unsigned int i;

	mutex_lock(&groups_lock);
	for (i = 0; i < l->group_count; i++) {
		struct group *group = l->groups[i];

		if (--group->lends)
			continue;
		list_del(&group->node);
		if (group->file)	/* only where LEND has failed: nobody has had the pages */
			fput(group->file);
		kfree(group);
	}
	l->group_count = 0;
	mutex_unlock(&groups_lock);
}

unsigned int count_groups(const struct lend *l)
{
	unsigned int i, n = 0;

	mutex_lock(&groups_lock);
	for (i = 0; i < l->group_count; i++)
		n += !!l->groups[i]->file;
	mutex_unlock(&groups_lock);
	return n;
}
