/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C06: drivers that are given a file by its descriptor, and write to it, or let others do so, without asking anybody: a held
 * file is not given to them.
 *
 * A descriptor that is named in user memory may be another one until the driver reads it.
 */
#ifndef LONGPIN_DRIVERS_H
#define LONGPIN_DRIVERS_H

#include "commands.h"
#include "real.h"
#include "strict.h"

#define MAX_BUFFERS 1024 /* what udmabuf takes, unless an administrator says otherwise */

/* What cannot be read now, the driver may read later: of any file. Decided as of one whose name is not known. */
__noinline int is_unread_refused(u32 operation, u64 command)
{
	struct act act = { .operation = operation, .detail = command, WHOLE_FILE };

	return decide(&act);
}

/* The loop driver, where a swap file answers its writes ETXTBSY; md, which a swap file answers EBUSY. */
static __always_inline bool is_given_file(u32 descriptor, u32 operation)
{
	struct act act = { .operation = operation, WHOLE_FILE };
	u64 file = file_of_descriptor(descriptor);

	if (!file || !(FIELD32(file, struct file, f_mode) & FMODE_WRITE))
		return false;
	act.inode = written_inode(file);
	return is_strictly_refused(&act);
}

/* udmabuf makes memory of a file's pages that anybody may write to who has the buffer, with a descriptor that only reads. */
static __always_inline bool judge_buffer(u64 place)
{
	struct act act = { .operation = OP_IOCTL, .detail = UDMABUF_CREATE, WHOLE_FILE };
	u32 descriptor = 0;
	u64 file;

	if (bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)place))
		return is_unread_refused(OP_IOCTL, UDMABUF_CREATE);
	file = file_of_descriptor(descriptor);
	act.inode = file ? inode_of_file(file) : 0;
	if (!act.inode || is_surely_free(act.inode) || is_holder(act.inode))
		return false;
	return is_strictly_refused(&act);
}

__noinline int is_buffer_refused(u64 place)
{
	return judge_buffer(place);
}

/* struct udmabuf_create_list, and struct udmabuf_create_item */
struct buffers {
	u32 flags;
	u32 count;
	u64 list;
	u64 refused;
};
#define BUFFERS_HEAD 8
#define BUFFER_STEP 24

static long look_at_buffer(u32 i, struct buffers **in_hand)
{
	struct buffers *buffers = *in_hand;

	/* In this frame: those below are all that there may be. */
	buffers->refused = judge_buffer(buffers->list + (u64)i * BUFFER_STEP);
	return buffers->refused != 0;
}

__noinline int are_buffers_refused(struct buffers *buffers)
{
	u32 count;

	if (!buffers)
		return true;
	count = buffers->count;
	bpf_loop(count < MAX_BUFFERS ? count : MAX_BUFFERS, look_at_buffer, &buffers, 0);
	return buffers->refused;
}

static __always_inline bool is_list_refused(u64 argument)
{
	struct buffers buffers = {};

	if (bpf_probe_read_user(&buffers, BUFFERS_HEAD, (void *)argument))
		return is_unread_refused(OP_IOCTL, UDMABUF_CREATE_LIST);
	buffers.list = argument + BUFFERS_HEAD;
	return are_buffers_refused(&buffers);
}

__noinline int is_loop_refused(u32 command, u64 argument)
{
	u32 descriptor = argument;

	/* The first word of struct loop_config. */
	if (command == LOOP_CONFIGURE &&
	    bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)argument))
		return is_unread_refused(OP_LOOP, command);
	return is_given_file(descriptor, command == SET_BITMAP_FILE ? OP_IOCTL : OP_LOOP);
}

static __always_inline bool is_driver_command(u64 inode, u32 command)
{
	u32 major = driver_of(command);

	return major && major == FIELD32(inode, struct inode, i_rdev) >> 20;
}

static __always_inline bool is_driver_refused(u32 command, u64 argument)
{
	if (command == UDMABUF_CREATE)
		return is_buffer_refused(argument);
	if (command == UDMABUF_CREATE_LIST)
		return is_list_refused(argument);
	return is_loop_refused(command, argument);
}

#endif
