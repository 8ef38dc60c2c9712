// SPDX-License-Identifier: GPL-2.0
/*
 * Spin locks that keep bottom halves off.
 */
#include <linux/spinlock.h>

void nfzr_helper_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void nfzr_helper_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

bool nfzr_helper_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}
