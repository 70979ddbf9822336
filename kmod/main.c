// SPDX-License-Identifier: GPL-2.0-only
/* /dev/longpin-lend: one node, for who may open it (root, mode 0600). */
#include "module.h"

#include <linux/miscdevice.h>
#include <linux/uaccess.h>

/*
 * Each structure begins with its size. `least` is what version 1 has, `known` what this module has; what the program has
 * beyond that must be zero.
 */
int copy_request(void *to, size_t known, size_t least, const void __user *from)
{
	u32 size;

	if (get_user(size, (const u32 __user *)from))
		return -EFAULT;
	if (size < least || size > PAGE_SIZE)
		return -EINVAL;
	/* The program may have changed the size meanwhile: nobody reads the copy of it. */
	return copy_struct_from_user(to, known, from, size);
}

/* Where a worker calls, the file's last close is over when this returns: LIST says nothing that is not so yet. */
void put_now(struct file *file)
{
	if (!file)
		return;
	if (current->flags & PF_KTHREAD)
		__fput_sync(file);
	else
		fput(file);
}

static long info_ioctl(void __user *arg)
{
	struct longpin_lend_info info = { .version = LONGPIN_LEND_VERSION };
	u32 size, known;

	if (get_user(size, (u32 __user *)arg))
		return -EFAULT;
	if (size < sizeof(info) || size > PAGE_SIZE)
		return -EINVAL;
	info.size = size;
	if (can_register())
		info.can |= LONGPIN_CAN_REGISTER;
	info.can |= LONGPIN_CAN_SEE_BOUNCE;
	if (SINCE(7, 2))
		info.can |= LONGPIN_CAN_REVOKE;
	if (SINCE(6, 15))
		info.can |= LONGPIN_WAITS_UNMAPPED;
	known = min_t(u32, size, sizeof(info));
	if (copy_to_user(arg, &info, known) || clear_user(arg + known, size - known))
		return -EFAULT;
	return 0;
}

static long device_ioctl(struct file *file, unsigned int request, unsigned long arg)
{
	void __user *where = (void __user *)arg;

	switch (request) {
	case LONGPIN_IOC_LEND:
		return lend_ioctl(where);
	case LONGPIN_IOC_UNTIL:
		return until_ioctl(where);
	case LONGPIN_IOC_FLAG:
		return flag_ioctl(where);
	case LONGPIN_IOC_LIST:
		return list_ioctl(where);
	case LONGPIN_IOC_REVOKE:
		return revoke_ioctl(where);
	case LONGPIN_IOC_INFO:
		return info_ioctl(where);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations device_ops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "longpin-lend",
	.fops = &device_ops,
	.mode = 0600,
};

static int __init module_begin(void)
{
	int err = lend_init();

	if (err)
		return err;
	err = flag_init();
	if (err)
		goto exit_lend;
	err = misc_register(&device);
	if (!err)
		return 0;
	flag_exit();
exit_lend:
	lend_exit();
	return err;
}

/* Nothing is lent any more: each lend, until its pages are unpinned, and each flag has a reference on the module. */
static void __exit module_end(void)
{
	misc_deregister(&device);
	flag_exit();
	lend_exit();
	door3_exit();
	rcu_barrier();
}

module_init(module_begin);
module_exit(module_end);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Lends pages of a held DAX file to devices that cannot take page faults");
MODULE_VERSION("1");
#if SINCE(6, 13)
MODULE_IMPORT_NS("DMA_BUF");
#else
MODULE_IMPORT_NS(DMA_BUF);
#endif
