// SPDX-License-Identifier: GPL-2.0
/*
 * Per-CPU memory.
 */
#include <linux/percpu.h>

void __percpu *nfzr_helper_percpu_alloc(size_t size)
{
	return __alloc_percpu_gfp(size, sizeof(u64), GFP_KERNEL_ACCOUNT);
}

void nfzr_helper_percpu_add(u64 __percpu *base, size_t index, u64 events)
{
	this_cpu_add(base[index], events);
}

/* Swaps this CPU's memory at base with *value, size bytes. */
void nfzr_helper_percpu_exchange(void __percpu *base, void *value, size_t size)
{
	u8 *here, *there = value;
	size_t i;

	local_bh_disable();
	here = this_cpu_ptr(base);
	for (i = 0; i < size; i++)
		swap(here[i], there[i]);
	local_bh_enable();
}

u64 nfzr_helper_percpu_sum(const u64 __percpu *base, size_t index)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(&base[index], cpu));
	return sum;
}
