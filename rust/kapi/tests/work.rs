// SPDX-License-Identifier: GPL-2.0

//! Work, locks and time.

use core::ptr::addr_of_mut;

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
    time::{delay::fsleep, Delta},
    workqueue::{impl_has_delayed_work, new_delayed_work, DelayedWork, WorkItem}, //
};

use super::{Drops, Job, Tracked};
use crate::kapi::sync::{
    lock::SpinLockBh,
    time,
    work::{system_dfl, CancelOnDrop}, //
};

/// Work that counts its runs, each of which takes 20 ms.
#[pin_data]
struct Counting {
    runs: Atomic<i32>,
    ends: Atomic<i32>,
    _tracked: Tracked,
    #[pin]
    work: DelayedWork<Self>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Counting { self.work }
}

impl WorkItem for Counting {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.runs.add(1, Relaxed);
        fsleep(Delta::from_millis(20));
        this.ends.add(1, Relaxed);
    }
}

impl Counting {
    fn new(drops: &Arc<Drops>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                runs: Atomic::new(0),
                ends: Atomic::new(0),
                _tracked: Tracked::new(0, drops),
                work <- new_delayed_work!("nfzr_kunit::Counting"),
            }),
            GFP_KERNEL,
        )
    }
}

fn enqueue(work: &Arc<Counting>, delay_ms: u32) -> bool {
    system_dfl()
        .enqueue_delayed::<Arc<Counting>, 0>(work.clone(), time::work_delay(delay_ms))
        .is_ok()
}

#[kunit_tests(nfzr_kapi_work)]
mod work_cases {
    use super::*;

    #[test]
    fn cancelling_gives_back_the_reference_of_queued_work() -> Result {
        let drops = Drops::new()?;
        let work = Counting::new(&drops)?;
        let queued = enqueue(&work, 60_000);
        drop(CancelOnDrop(work.clone()));
        let runs = work.runs.load(Relaxed);
        drop(work);
        assert!(queued);
        assert_eq!(runs, 0);
        assert_eq!(drops.count(), 1);
        Ok(())
    }

    #[test]
    fn what_was_cancelled_is_not_queued_again() -> Result {
        let drops = Drops::new()?;
        let work = Counting::new(&drops)?;
        let guard = CancelOnDrop(work.clone());
        guard.cancel();
        let queued = enqueue(&work, 0);
        fsleep(Delta::from_millis(20));
        let runs = work.runs.load(Relaxed);
        drop(guard);
        drop(work);
        assert!(!queued);
        assert_eq!(runs, 0);
        assert_eq!(drops.count(), 1);
        Ok(())
    }

    #[test]
    fn cancelling_waits_for_work_that_runs() -> Result {
        let drops = Drops::new()?;
        let work = Counting::new(&drops)?;
        let guard = CancelOnDrop(work.clone());
        enqueue(&work, 0);
        let mut waited = 0;
        while work.runs.load(Relaxed) == 0 && waited < 10_000 {
            fsleep(Delta::from_micros(500));
            waited += 1;
        }
        drop(guard);
        let (runs, ends) = (work.runs.load(Relaxed), work.ends.load(Relaxed));
        drop(work);
        assert_eq!((runs, ends), (1, 1));
        assert_eq!(drops.count(), 1);
        Ok(())
    }
}

/// A number that needs a lock to be counted correctly.
#[pin_data]
struct Shared {
    #[pin]
    number: SpinLockBh<Unshared>,
}

/// A number that is read and written in two steps, so that increments are lost without exclusion.
struct Unshared(u32);

impl Unshared {
    fn increment(&mut self) {
        let place = addr_of_mut!(self.0);
        // SAFETY: `place` comes from `&mut self`, so it is valid and ours alone.
        let seen = unsafe { place.read_volatile() };
        // SAFETY: As above.
        unsafe { place.write_volatile(seen.wrapping_add(1)) };
    }
}

#[kunit_tests(nfzr_kapi_lock)]
mod lock_cases {
    use super::*;

    #[test]
    fn a_lock_lets_in_one_at_a_time() -> Result {
        let shared = Arc::pin_init(
            pin_init!(Shared {
                number <- SpinLockBh::new(
                    Unshared(0),
                    c"nfzr_kunit::Shared",
                    kernel::static_lock_class!(),
                ),
            }),
            GFP_KERNEL,
        )?;
        let mut jobs = KVec::new();
        for _ in 0..4 {
            let shared = shared.clone();
            let job = Job::start(move || {
                for _ in 0..20_000 {
                    shared.number.lock().increment();
                }
            })?;
            jobs.push(job, GFP_KERNEL)?;
        }
        for job in &jobs {
            job.wait();
        }
        let number = shared.number.lock().0;
        assert_eq!(number, 80_000);
        Ok(())
    }
}

#[kunit_tests(nfzr_kapi_time)]
mod time_cases {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up_to_jiffies() {
        assert_eq!(time::from_ms(0), 0);
        assert_eq!(time::from_ms(1), 1);
        for ms in [1, 3, 4, 5, 999, 1000, 1001, 60_000, 86_400_000] {
            assert!(time::to_ms(time::from_ms(ms)) >= ms);
            assert!(time::to_ms(time::from_ms(ms)) < ms + 10);
        }
    }

    #[test]
    fn more_than_a_day_is_a_day() {
        assert_eq!(time::from_ms(u32::MAX), time::from_ms(86_400_000));
    }

    #[test]
    fn jiffies_go_on() {
        let before = time::jiffies32();
        fsleep(Delta::from_millis(30));
        let passed = time::to_ms(time::jiffies32().wrapping_sub(before));
        assert!(passed >= 20);
    }
}
