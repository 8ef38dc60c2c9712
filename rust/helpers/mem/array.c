// SPDX-License-Identifier: GPL-2.0
/*
 * An array of pointers: the kernel's generic radix tree. Unlike an XArray, it is read by inline
 * code; it is read without a lock. A slot is written by atomic exchange. The memory of a slot stays
 * allocated until the array is freed. Any context; nothing sleeps.
 */
#include <linux/generic-radix-tree.h>

static void **nfzr_array_place(struct __genradix *array, u32 index)
{
	return __genradix_ptr_inlined(array, (size_t)index * sizeof(void *));
}

#define NFZR_LEAF (GENRADIX_NODE_SIZE / sizeof(void *))

/*
 * Returns the slots of the leaf that an index is in, or NULL if it has no memory: as
 * nfzr_array_place(), without a call. Indices and shifts are masked, so that no check of bounds is
 * compiled in. An index takes 32 bits, so a shift is less than 32.
 */
static __always_inline void *const *nfzr_array_leaf(struct __genradix *array, u32 index)
{
	struct genradix_root *root = READ_ONCE(array->root);
	const struct genradix_node *node = genradix_root_to_node(root);
	unsigned int shift = GENRADIX_ARY_SHIFT * genradix_root_to_depth(root);

	BUILD_BUG_ON(NFZR_LEAF != GENRADIX_ARY);
	if ((u32)(index / NFZR_LEAF) >> shift % 32)
		return NULL;
	for (; node && shift; shift -= GENRADIX_ARY_SHIFT)
		node = READ_ONCE(node->children[(index >> shift % 32) % GENRADIX_ARY]);
	return node ? (void *const *)node->data : NULL;
}

static __always_inline void *nfzr_array_load(struct __genradix *array, u32 index)
{
	void *const *leaf = nfzr_array_leaf(array, index);

	return leaf ? READ_ONCE(leaf[index % NFZR_LEAF]) : NULL;
}

void *nfzr_helper_array_load(struct __genradix *array, u32 index)
{
	return nfzr_array_load(array, index);
}

/* Stores entry at index. Returns -EBUSY if the slot is taken, -ENOMEM if there is no memory. */
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

/* Returns the old pointer. The caller passes a NULL entry, or the slot is in use. */
void *nfzr_helper_array_replace(struct __genradix *array, u32 index, void *entry)
{
	void **place = nfzr_array_place(array, index);

	return place ? xchg(place, entry) : NULL;
}

/* Removes entry from a slot. Returns false if the slot has another pointer. */
bool nfzr_helper_array_clear(struct __genradix *array, u32 index, void *entry)
{
	void **place = nfzr_array_place(array, index);

	return place && cmpxchg(place, entry, NULL) == entry;
}

/* As nfzr_helper_array_next(), by the kernel's iterator, which skips leaves without memory. */
static noinline void *nfzr_array_next_leaf(struct __genradix *array, u32 *index, u64 end)
{
	struct genradix_iter iter = { .offset = (size_t)*index * sizeof(void *), .pos = *index };
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

/*
 * Returns the first pointer at *index or later, within the given number of places (and on to the end
 * of a leaf), and writes its index to *index. If there is none, returns NULL and writes to *index
 * where to continue, or U32_MAX if the rest of the array is empty. *index is less than U32_MAX.
 */
void *nfzr_helper_array_next(struct __genradix *array, u32 *index, u32 places)
{
	void *const *leaf = nfzr_array_leaf(array, *index);
	u64 end = (u64)*index + places;
	void *entry;

	/* The next pointer is most often in the same leaf. */
	if (leaf) {
		do {
			entry = READ_ONCE(leaf[*index % NFZR_LEAF]);
			if (entry)
				return entry;
		} while (++*index % NFZR_LEAF);
		if (!*index) {
			*index = U32_MAX;
			return NULL;
		}
	}
	return nfzr_array_next_leaf(array, index, end);
}

void nfzr_helper_array_free(struct __genradix *array)
{
	__genradix_free(array);
}
