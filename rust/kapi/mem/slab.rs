// SPDX-License-Identifier: GPL-2.0

//! Typed slab caches, whose objects can be freed after a grace period.
//!
//! C header: [`include/linux/slab.h`](srctree/include/linux/slab.h)

use core::{
    marker::PhantomData,
    mem::{align_of, size_of, ManuallyDrop, MaybeUninit},
    ptr::NonNull, //
};

use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::rcu::rcu_barrier, //
};

use crate::bindings;

/// An object of a cache: the value, and the head with which RCU frees it.
#[repr(C)]
pub(in crate::kapi) struct Object<T> {
    pub(in crate::kapi) value: T,
    pub(in crate::kapi) rcu: MaybeUninit<bindings::callback_head>,
}

impl<T> Object<T> {
    /// Drops and frees an object: the `rcu_callback_t`. Softirq.
    ///
    /// # Safety
    ///
    /// `head` is the `rcu` field of an object that nothing else owns or can reach.
    pub(in crate::kapi) unsafe extern "C" fn free(head: *mut bindings::callback_head) {
        // SAFETY: By the function's requirement `head` is that field of an `Object<T>`.
        let object = unsafe {
            kernel::container_of!(
                head.cast::<MaybeUninit<bindings::callback_head>>(),
                Self,
                rcu
            )
        };
        // SAFETY: `container_of!` of a valid pointer is not null.
        let object = unsafe { NonNull::new_unchecked(object) };
        // SAFETY: By the function's requirement nothing else owns or can reach the object.
        drop(unsafe { SlabBox::from_raw(object) });
    }
}

/// A `struct kmem_cache` of objects that hold a `T`.
///
/// # Invariants
///
/// `cache` was created with the size and alignment of `Object<T>`.
pub(crate) struct Cache<T> {
    cache: NonNull<bindings::kmem_cache>,
    _values: PhantomData<fn() -> T>,
}

// SAFETY: `struct kmem_cache` is made for use by all CPUs.
unsafe impl<T> Send for Cache<T> {}
// SAFETY: As above.
unsafe impl<T> Sync for Cache<T> {}

impl<T> Cache<T> {
    /// The size of one object, in bytes.
    pub(crate) const OBJECT_SIZE: usize = size_of::<Object<T>>();

    /// Creates the cache. Process context.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        let mut args = bindings::kmem_cache_args {
            align: align_of::<Object<T>>().try_into()?,
            ..Default::default()
        };
        // SAFETY: `name` is static, and `args` is valid for the call.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(
                name.as_char_ptr(),
                Self::OBJECT_SIZE.try_into()?,
                &mut args,
                1 << bindings::_slab_flag_bits__SLAB_HWCACHE_ALIGN,
            )
        };
        // INVARIANT: Created above with this size and alignment.
        Ok(Self {
            cache: NonNull::new(cache).ok_or(ENOMEM)?,
            _values: PhantomData,
        })
    }

    /// Allocates an object that holds `value`. Any context; never sleeps, never warns.
    pub(crate) fn alloc(&self, value: T) -> Result<SlabBox<T>, AllocError> {
        const FLAGS: bindings::gfp_t = bindings::GFP_ATOMIC | bindings::__GFP_NOWARN;
        // SAFETY: By the type invariant the cache is valid as long as `self`.
        let object = unsafe { bindings::kmem_cache_alloc_noprof(self.cache.as_ptr(), FLAGS) };
        let object = NonNull::new(object.cast::<Object<T>>()).ok_or(AllocError)?;
        // SAFETY: By the type invariant the memory has the size and alignment of an `Object<T>`.
        // Nothing else uses it yet.
        unsafe {
            object.as_ptr().write(Object {
                value,
                rcu: MaybeUninit::uninit(),
            })
        };
        Ok(SlabBox(object))
    }
}

impl<T> Drop for Cache<T> {
    /// Waits for objects that RCU has yet to free. Process context.
    fn drop(&mut self) {
        rcu_barrier();
        // SAFETY: Created in `new`, and this is the only owner. If an object were still allocated,
        // the kernel would warn and keep the cache's memory.
        unsafe { bindings::kmem_cache_destroy(self.cache.as_ptr()) };
    }
}

/// An object that only its owner can reach.
///
/// # Invariants
///
/// `0` is an initialised object that `kfree()` accepts, and that nothing else owns or can reach.
pub(crate) struct SlabBox<T>(NonNull<Object<T>>);

impl<T> SlabBox<T> {
    /// Allocates an object that holds `value` from no cache, because there are few of its kind.
    /// Process context; sleeps.
    pub(crate) fn alloc_rare(value: T) -> Result<Self> {
        let rcu = MaybeUninit::uninit();
        let object = KBox::new(Object { value, rcu }, GFP_KERNEL)?;
        // INVARIANT: Initialised above. `kfree()` frees it as it frees an object of a cache.
        Ok(Self(NonNull::from(KBox::leak(object))))
    }

    /// # Safety
    ///
    /// `object` is initialised, `kfree()` accepts its memory, and nothing else owns or can reach
    /// it.
    pub(in crate::kapi) unsafe fn from_raw(object: NonNull<Object<T>>) -> Self {
        // INVARIANT: By the function's requirement.
        Self(object)
    }

    /// Gives up ownership of the object.
    pub(in crate::kapi) fn into_raw(self) -> NonNull<Object<T>> {
        ManuallyDrop::new(self).0
    }
}

impl<T> Drop for SlabBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the object is initialised and only ours.
        unsafe { core::ptr::drop_in_place(&mut self.0.as_mut().value) };
        // SAFETY: By the type invariant `kfree()` accepts the memory.
        unsafe { bindings::kfree(self.0.as_ptr().cast()) };
    }
}
