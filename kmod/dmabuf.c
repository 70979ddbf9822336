// SPDX-License-Identifier: GPL-2.0-only
/* The dma-buf of a lend. Door 1: importers. Door 2: a mapping of frames, which VFIO takes. */
#include "module.h"

#include <linux/anon_inodes.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/iommu.h>
#include <linux/iosys-map.h>
#include <linux/scatterlist.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

static int lend_attach(struct dma_buf *buf, struct dma_buf_attachment *attachment)
{
	struct lend *l = buf->priv;

	/* It would get bounce buffers: what it writes would reach the file late, or never. */
	if (dma_addressing_limited(attachment->dev))
		return -EOPNOTSUPP;
	atomic_inc(&l->importers);
	return 0;
}

static void lend_detach(struct dma_buf *buf, struct dma_buf_attachment *attachment)
{
	struct lend *l = buf->priv;

	atomic_dec(&l->importers);
}

static unsigned long max_piece(struct device *device)
{
	return max(min_t(unsigned long, dma_get_max_seg_size(device), SZ_1G) & PAGE_MASK, PAGE_SIZE);
}

static int fill_table(struct sg_table *table, const struct lend *l, unsigned long most)
{
	struct scatterlist *sg;
	unsigned long n = 0, done;
	unsigned int r;
	int err;

	for (r = 0; r < l->run_count; r++)
		n += DIV_ROUND_UP(l->runs[r].nr, most >> PAGE_SHIFT);
	if (n > UINT_MAX)
		return -E2BIG;
	err = sg_alloc_table(table, n, GFP_KERNEL);
	if (err)
		return err;
	sg = table->sgl;
	for (r = 0; r < l->run_count; r++) {
		for (done = 0; done < l->runs[r].nr; done += most >> PAGE_SHIFT) {
			unsigned long nr = min(l->runs[r].nr - done, most >> PAGE_SHIFT);

			sg_set_page(sg, pfn_to_page(l->runs[r].pfn + done), nr << PAGE_SHIFT, 0);
			sg = sg_next(sg);
		}
	}
	return 0;
}

/* Without an IOMMU that translates, an address that wants to be synchronized is a bounce buffer's. */
static bool is_bounced(struct device *device, struct sg_table *table)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(device);
	struct scatterlist *sg;
	int i;

	if (domain && (domain->type & __IOMMU_DOMAIN_PAGING))
		return false;
	for_each_sgtable_dma_sg(table, sg, i)
		if (dma_need_sync(device, sg_dma_address(sg)))
			return true;
	return false;
}

static struct sg_table *lend_map(struct dma_buf_attachment *attachment, enum dma_data_direction direction)
{
	struct lend *l = attachment->dmabuf->priv;
	struct sg_table *table;
	int err;

	if (READ_ONCE(l->revoked))
		return ERR_PTR(-ENODEV);
	/* Nothing but the direction says whether a device writes: RDMA always says both. */
	if (direction != DMA_TO_DEVICE && !may_write(l))
		return ERR_PTR(-EACCES);
	table = kzalloc(sizeof(*table), GFP_KERNEL);
	if (!table)
		return ERR_PTR(-ENOMEM);
	err = fill_table(table, l, max_piece(attachment->dev));
	if (err)
		goto free;
	err = dma_map_sgtable(attachment->dev, table, direction, DMA_ATTR_SKIP_CPU_SYNC);
	if (err)
		goto free_table;
	if (!is_bounced(attachment->dev, table))
		return table;
	err = -EOPNOTSUPP;
	dma_unmap_sgtable(attachment->dev, table, direction, DMA_ATTR_SKIP_CPU_SYNC);
free_table:
	sg_free_table(table);
free:
	kfree(table);
	return ERR_PTR(err);
}

static void lend_unmap(struct dma_buf_attachment *attachment, struct sg_table *table, enum dma_data_direction direction)
{
	dma_unmap_sgtable(attachment->dev, table, direction, DMA_ATTR_SKIP_CPU_SYNC);
	sg_free_table(table);
	kfree(table);
}

/* Importers that copy by the CPU. */
static int lend_vmap(struct dma_buf *buf, struct iosys_map *map)
{
	struct lend *l = buf->priv;
	struct page **pages;
	unsigned long i;
	void *address;

	pages = kvmalloc_array(l->nr, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	for (i = 0; i < l->nr; i++)
		pages[i] = pfn_to_page(pfn_at(l, i));
	address = vmap(pages, l->nr, VM_MAP, PAGE_KERNEL);
	kvfree(pages);
	if (!address)
		return -ENOMEM;
	atomic_inc(&l->importers);
	iosys_map_set_vaddr(map, address);
	return 0;
}

static void lend_vunmap(struct dma_buf *buf, struct iosys_map *map)
{
	struct lend *l = buf->priv;

	vunmap(map->vaddr);
	atomic_dec(&l->importers);
}

static vm_fault_t lend_fault(struct vm_fault *vmf)
{
	struct lend *l = vmf->vma->vm_private_data;
	unsigned long i = vmf->pgoff - l->range.start;
	vm_fault_t result = VM_FAULT_SIGBUS;

	/* The lock, so that no frame is entered behind what revoke has removed. */
	down_read(&l->revoke_lock);
	if (i < l->nr && !l->revoked)
		result = vmf_insert_pfn(vmf->vma, vmf->address, pfn_at(l, i));
	up_read(&l->revoke_lock);
	return result;
}

static void lend_vm_open(struct vm_area_struct *vma)
{
	struct lend *l = vma->vm_private_data;

	get_dma_buf(l->buf);
	atomic_inc(&l->mappings);
}

static void lend_vm_close(struct vm_area_struct *vma)
{
	struct lend *l = vma->vm_private_data;

	atomic_dec(&l->mappings);
	dma_buf_put(l->buf);
}

static const struct vm_operations_struct lend_vm_ops = {
	.fault = lend_fault,
	.open = lend_vm_open,
	.close = lend_vm_close,
};

/*
 * A mapping belongs to a file of ours with the address space of the lent one: before 6.15 a file system waits for pins only
 * while somebody maps the file. It is not the lent file itself, for remap_file_pages(2) would make a mapping of any part of
 * that of it; ours cannot be mapped.
 */
static const struct file_operations window_ops = { .owner = THIS_MODULE };

int open_window(struct lend *l)
{
	struct file *window = anon_inode_getfile("[longpin-lend]", &window_ops, NULL, O_RDWR);

	if (IS_ERR(window))
		return PTR_ERR(window);
	window->f_mapping = l->mapping;
	l->window = window;
	return 0;
}

static void set_flags(struct vm_area_struct *vma, const struct lend *l)
{
	unsigned long clear = VM_MAYEXEC | (may_write(l) ? 0 : VM_MAYWRITE);
	unsigned long set = VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP;
#if SINCE(6, 3)
	vm_flags_clear(vma, clear);
	vm_flags_set(vma, set);
#else
	vma->vm_flags = (vma->vm_flags & ~clear) | set;
#endif
}

static int lend_mmap(struct dma_buf *buf, struct vm_area_struct *vma)
{
	struct lend *l = buf->priv;

	/* VFIO will keep the frames without a reference: somebody must have said how long. */
	if (!smp_load_acquire(&l->group_count))
		return -ENXIO;
	/* Not VM_SHARED, which goes where the descriptor is for reading only. */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if ((vma->vm_flags & VM_WRITE) && !may_write(l))
		return -EACCES;
	/* The file may lie on a mount that forbids it. */
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vma_set_file(vma, l->window);
	vma->vm_pgoff += l->range.start;
	vma->vm_private_data = l;
	vma->vm_ops = &lend_vm_ops;
	set_flags(vma, l);
	lend_vm_open(vma);
	return 0;
}

static void lend_release(struct dma_buf *buf)
{
	begin_end(buf->priv);
}

#define OPS_WITHOUT_VMAP						\
	.attach = lend_attach, .detach = lend_detach,			\
	.map_dma_buf = lend_map, .unmap_dma_buf = lend_unmap,		\
	.mmap = lend_mmap, .vunmap = lend_vunmap, .release = lend_release

static const struct dma_buf_ops lend_ops = { OPS_WITHOUT_VMAP, .vmap = lend_vmap };

/*
 * The kernel warns where vmap() refuses, but not where there is none. There is none for a lend that reads, as importers do not
 * say whether they write and would crash on a mapping that only reads; none of a terabyte, whose array would be too large; and
 * none of what is revoked.
 */
static const struct dma_buf_ops no_vmap_ops = { OPS_WITHOUT_VMAP };

static bool can_vmap(const struct lend *l)
{
	return may_write(l) && l->nr <= INT_MAX / sizeof(struct page *);
}

/* The lend is the dma-buf's from here on; if that fails, it ends. The descriptor, or an error. */
int export_lend(struct lend *l)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	int fd = get_unused_fd_flags(O_CLOEXEC);
	struct dma_buf *buf;

	if (fd < 0) {
		give_up(l);
		return fd;
	}
	info.ops = can_vmap(l) ? &lend_ops : &no_vmap_ops;
	info.size = l->nr << PAGE_SHIFT;
	info.priv = l;
	info.flags = may_write(l) ? O_RDWR : O_RDONLY;
	buf = dma_buf_export(&info);
	if (IS_ERR(buf)) {
		put_unused_fd(fd);
		give_up(l);
		return PTR_ERR(buf);
	}
	l->buf = buf;
	fd_install(fd, buf->file);
	return fd;
}

u32 count_importers(const struct lend *l)
{
	return atomic_read(&l->importers);
}

/* The dma-buf of a lend, with a reference that keeps both. */
static struct dma_buf *get_lent(int fd)
{
	struct dma_buf *buf = dma_buf_get(fd);

	if (IS_ERR(buf) || buf->ops == &lend_ops || buf->ops == &no_vmap_ops)
		return buf;
	dma_buf_put(buf);
	return ERR_PTR(-EINVAL);
}

long until_ioctl(const void __user *arg)
{
	struct longpin_lend_until request = {};
	struct dma_buf *buf;
	int err = copy_request(&request, sizeof(request), sizeof(request), arg);

	if (err)
		return err;
	if (request.zero)
		return -EINVAL;
	buf = get_lent(request.dmabuf);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	err = add_group(buf->priv, request.group);
	dma_buf_put(buf);
	return err;
}

static long revoke(struct dma_buf *buf)
{
#if SINCE(7, 2)
	struct lend *l = buf->priv;
	long left;

	down_write(&l->revoke_lock);
	WRITE_ONCE(l->revoked, true);
	up_write(&l->revoke_lock);
	/* Not the copies that private mappings of the file have made. */
	unmap_mapping_range(l->mapping, (loff_t)l->range.start << PAGE_SHIFT, (loff_t)l->nr << PAGE_SHIFT, 0);
	dma_resv_lock(buf->resv, NULL);
	buf->ops = &no_vmap_ops;	/* the lock is vmap's, too */
	dma_buf_invalidate_mappings(buf);
	left = dma_resv_wait_timeout(buf->resv, DMA_RESV_USAGE_BOOKKEEP, true, MAX_SCHEDULE_TIMEOUT);
	dma_resv_unlock(buf->resv);
	return left < 0 ? left : 0;
#else
	return -EOPNOTSUPP;
#endif
}

long revoke_ioctl(const void __user *arg)
{
	struct longpin_lend_revoke request = {};
	struct dma_buf *buf;
	long err = copy_request(&request, sizeof(request), sizeof(request), arg);

	if (err)
		return err;
	buf = get_lent(request.dmabuf);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	err = revoke(buf);
	dma_buf_put(buf);
	return err;
}
