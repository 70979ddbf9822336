// SPDX-License-Identifier: GPL-2.0-only
/* What is lent, for the administrator. */
#include "module.h"

#include <linux/capability.h>
#include <linux/kdev_t.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

/* In ascending order of their numbers. */
static LIST_HEAD(entries);
static DEFINE_MUTEX(entries_lock);
static unsigned int entry_count;
static u64 last_id;
static DECLARE_WAIT_QUEUE_HEAD(lookers_wait);

/* The caller's, who has set the file. */
void list_entry_of(struct entry *entry, bool is_lend)
{
	entry->pid = get_task_pid(current, PIDTYPE_TGID);
	get_task_comm(entry->command, current->group_leader);
	entry->since = ktime_get_boottime_ns();
	entry->dev = new_encode_dev(file_inode(entry->file)->i_sb->s_dev);
	entry->inode = file_inode(entry->file)->i_ino;
	entry->is_lend = is_lend;
	mutex_lock(&entries_lock);
	entry->id = ++last_id;
	list_add_tail(&entry->node, &entries);
	entry_count++;
	mutex_unlock(&entries_lock);
}

/* It is listed until all that it held has been let go of, but LIST looks at nothing of it any more that may go. */
void end_entry(struct entry *entry)
{
	mutex_lock(&entries_lock);
	entry->ending = true;
	mutex_unlock(&entries_lock);
	/* No new one looks. */
	wait_event(lookers_wait, !atomic_read(&entry->lookers));
}

/* Nothing, if it never was listed. */
void unlist_entry(struct entry *entry)
{
	mutex_lock(&entries_lock);
	if (entry->id) {
		list_del(&entry->node);
		entry_count--;
	}
	mutex_unlock(&entries_lock);
	/* No new one finds it. */
	wait_event(lookers_wait, !atomic_read(&entry->lookers));
	put_pid(entry->pid);
}

static void leave_entry(struct entry *entry)
{
	if (atomic_dec_and_test(&entry->lookers))
		wake_up_all(&lookers_wait);
}

static void describe_lend(struct longpin_lend_row *row, struct lend *l, bool ending)
{
	row->offset = (u64)l->range.start << PAGE_SHIFT;
	row->length = (u64)l->nr << PAGE_SHIFT;
	row->flags = l->flags;
	if (ending)
		return;
	if (READ_ONCE(l->open))
		row->flags |= LONGPIN_ROW_OPEN;
	if (READ_ONCE(l->revoked))
		row->flags |= LONGPIN_ROW_REVOKED;
	if (is_used(l))
		row->flags |= LONGPIN_ROW_PINNED;
	row->groups = count_groups(l);
	row->importers = count_importers(l);
	row->mappings = atomic_read(&l->mappings);
}

static void describe(struct longpin_lend_row *row, struct entry *entry, bool ending)
{
	memset(row, 0, sizeof(*row));
	row->id = entry->id;
	row->dev = entry->dev;
	row->inode = entry->inode;
	row->since = entry->since;
	row->pid = pid_vnr(entry->pid);
	BUILD_BUG_ON(sizeof(row->command) != sizeof(entry->command));
	memcpy(row->command, entry->command, sizeof(row->command));
	if (entry->is_lend)
		describe_lend(row, container_of(entry, struct lend, entry), ending);
	else
		row->flags = LONGPIN_ROW_FLAG;
}

struct seen {
	struct entry *entry;	/* it stays until leave_entry() */
	bool ending;
	struct longpin_lend_row row;
};

static struct seen *find_entries(u64 after, u32 room, u32 *count)
{
	struct seen *seen = NULL;
	struct entry *entry;
	u32 have;

	for (*count = 0;; kvfree(seen)) {
		have = min(room, READ_ONCE(entry_count));
		seen = kvcalloc(max(have, 1U), sizeof(*seen), GFP_KERNEL | __GFP_NOWARN);
		if (!seen)
			return ERR_PTR(-ENOMEM);
		mutex_lock(&entries_lock);
		if (have >= min(room, entry_count))
			break;
		mutex_unlock(&entries_lock);	/* more have come */
	}
	list_for_each_entry(entry, &entries, node) {
		if (entry->id <= after)
			continue;
		if (*count == have)
			break;
		atomic_inc(&entry->lookers);
		seen[*count].ending = entry->ending;
		seen[(*count)++].entry = entry;
	}
	mutex_unlock(&entries_lock);
	return seen;
}

/*
 * Without the lock: a terabyte takes seconds to look at, and who lends, or ends, waits for the lock. All entries are left
 * before the first row is written, as the caller's memory may let that wait for as long as he likes.
 */
static struct seen *look_at_entries(u64 after, u32 room, u32 *count)
{
	struct seen *seen = find_entries(after, room, count);
	u32 i;

	if (IS_ERR(seen))
		return seen;
	for (i = 0; i < *count; i++) {
		describe(&seen[i].row, seen[i].entry, seen[i].ending);
		leave_entry(seen[i].entry);
	}
	if (!fatal_signal_pending(current))
		return seen;
	kvfree(seen);
	return ERR_PTR(-EINTR);
}

static int write_row(void __user *to, u32 size, const struct longpin_lend_row *row)
{
	u32 known = min_t(u32, size, sizeof(*row));

	return copy_to_user(to, row, known) || clear_user(to + known, size - known) ? -EFAULT : 0;
}

long list_ioctl(const void __user *arg)
{
	struct longpin_lend_list request = {};
	struct seen *seen;
	u32 count, i;
	long err = copy_request(&request, sizeof(request), sizeof(request), arg);

	if (err)
		return err;
	if (request.zero || request.row_size < sizeof(seen->row) || request.row_size > PAGE_SIZE || request.room > INT_MAX)
		return -EINVAL;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	seen = look_at_entries(request.after, request.room, &count);
	if (IS_ERR(seen))
		return PTR_ERR(seen);
	for (i = 0; i < count && !err; i++)
		err = write_row(u64_to_user_ptr(request.rows + (u64)i * request.row_size), request.row_size, &seen[i].row);
	kvfree(seen);
	return err ?: count;
}
