// SPDX-License-Identifier: GPL-2.0
/*
 * Pointers by number: the kernel's generic radix tree, which is read without a lock and, unlike an
 * XArray, by inline code. A place is written by atomic exchange. What was once used stays allocated until
 * the end. Any context; nothing sleeps.
 */
#include <linux/generic-radix-tree.h>

static void **nfzr_array_place(struct __genradix *array, u32 index)
{
	return __genradix_ptr_inlined(array, (size_t)index * sizeof(void *));
}

void *nfzr_helper_array_load(struct __genradix *array, u32 index)
{
	void **place = nfzr_array_place(array, index);

	return place ? READ_ONCE(*place) : NULL;
}

/* -EBUSY: the place is taken. */
int nfzr_helper_array_insert(struct __genradix *array, u32 index, void *entry)
{
	void **place = nfzr_array_place(array, index);

	if (!place)
		place = __genradix_ptr_alloc(array, (size_t)index * sizeof(void *), NULL,
					     GFP_ATOMIC | __GFP_NOWARN);
	if (!place)
		return -ENOMEM;
	return cmpxchg(place, NULL, entry) ? -EBUSY : 0;
}

/* What was there. entry is NULL, or something was there. */
void *nfzr_helper_array_replace(struct __genradix *array, u32 index, void *entry)
{
	void **place = nfzr_array_place(array, index);

	return place ? xchg(place, entry) : NULL;
}

#define NFZR_LEAF (GENRADIX_NODE_SIZE / sizeof(void *))

/*
 * The first that is at *index or later, whose place is written to *index, if it is among so many places.
 * NULL: it is not, and *index is where to go on; U32_MAX: there is nothing more.
 */
void *nfzr_helper_array_next(struct __genradix *array, u32 *index, u32 places)
{
	struct genradix_iter iter = { .offset = (size_t)*index * sizeof(void *), .pos = *index };
	u64 end = (u64)*index + places;
	void **place, *entry;

	while ((place = __genradix_iter_peek(&iter, array, NFZR_LEAF)) && iter.pos < U32_MAX) {
		if (iter.pos >= end) {
			*index = iter.pos;
			return NULL;
		}
		do {
			entry = READ_ONCE(*place);
			if (entry) {
				*index = iter.pos;
				return entry;
			}
			place++;
			__genradix_iter_advance(&iter, sizeof(void *));
		} while (iter.pos % NFZR_LEAF);
	}
	*index = U32_MAX;
	return NULL;
}

void nfzr_helper_array_free(struct __genradix *array)
{
	__genradix_free(array);
}

/* The lowest number that nobody has in min..=max; -ENOSPC: there is none. */
int nfzr_helper_ida_alloc(struct ida *ida, u32 min, u32 max)
{
	/* rust/kapi/mem/array.rs has it as a number. */
	BUILD_BUG_ON(IDA_BITMAP_BITS != 1024);
	return ida_alloc_range(ida, min, max, GFP_ATOMIC | __GFP_NOWARN);
}

void nfzr_helper_ida_init(struct ida *ida)
{
	ida_init(ida);
}
