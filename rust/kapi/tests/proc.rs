// SPDX-License-Identifier: GPL-2.0

//! Files in /proc/net.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{atomic::Relaxed, Arc}, //
};

use super::{
    netns::{register, World, ANY},
    Drops, //
};
use crate::{
    bindings,
    kapi::{
        fs::proc::{Directory, Rows, Text},
        net::netns::Init,
        sync::rcu::ReadSide, //
    },
};

/// Creates the files of the suite in a netns that is being set up.
pub(super) fn files(init: &Init<'_>, world: &Arc<World>) -> Result<Directory<World>> {
    let directory = Directory::new(init, c"nfzr_kunit", world.clone())?;
    directory.rows::<TestRows>(c"rows")?;
    directory.text::<TestText>(c"text")?;
    Ok(directory)
}

/// A row of the file.
pub(super) struct Row(u32);

impl Row {
    pub(super) fn new(number: u32) -> Self {
        Self(number)
    }
}

struct TestRows;

impl Rows for TestRows {
    type Data = World;

    fn find(world: &World, from: u32, rcu: &ReadSide<'_>) -> Option<u32> {
        Some(world.rows.next(from, rcu)?.0)
    }

    fn show(world: &World, number: u32, to: &SeqFile, rcu: &ReadSide<'_>) {
        if let Some(row) = world.rows.get(number, rcu) {
            seq_print!(to, "row {:>59}\n", row.0);
        }
    }
}

struct TestText;

impl Text for TestText {
    type Data = World;

    fn show(world: &World, to: &SeqFile) {
        let set_up = world.init.load(Relaxed) != 0;
        seq_print!(to, "set up: {set_up}\n");
    }
}

/// An open file.
struct File(NonNull<bindings::file>);

impl File {
    fn open(path: &CStr) -> Option<Self> {
        // SAFETY: A `CStr` is NUL-terminated.
        NonNull::new(unsafe { bindings::nfzr_kunit_open(path.as_char_ptr()) }).map(Self)
    }

    /// Reads from the current position; returns the number of bytes.
    fn read(&self, buf: &mut [u8]) -> Result<usize> {
        // SAFETY: The file is open, and `buf` is writable for `buf.len()` bytes.
        let len = unsafe {
            bindings::nfzr_kunit_read(self.0.as_ptr(), buf.as_mut_ptr().cast(), buf.len())
        };
        usize::try_from(len).map_err(|_| EIO)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: The file is open, and we own it.
        unsafe { bindings::nfzr_kunit_close(self.0.as_ptr()) };
    }
}

#[kunit_tests(nfzr_kapi_proc_fs)]
mod proc_cases {
    use super::*;

    /// The number of times that each row was shown.
    struct Seen([u8; 1024]);

    impl Seen {
        /// Counts the rows in a piece of the file, which consists of whole lines of 64 bytes.
        fn add(&mut self, text: &[u8]) -> Result {
            for line in text.chunks(64) {
                let number = line
                    .iter()
                    .filter(|byte| byte.is_ascii_digit())
                    .fold(0usize, |number, byte| {
                        number * 10 + usize::from(byte - b'0')
                    });
                *self.0.get_mut(number).ok_or(EINVAL)? += 1;
            }
            Ok(())
        }
    }

    #[test]
    fn rows_that_stay_are_shown_once_while_others_come_and_go() -> Result {
        const PIECE: usize = 1024;

        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        // The even rows stay.
        for number in (0..600).step_by(2) {
            world.add_row(number)?;
        }
        let mut seen = KBox::new(Seen([0; 1024]), GFP_KERNEL)?;
        let mut piece = KVec::from_elem(0u8, PIECE, GFP_KERNEL)?;
        let file = File::open(c"/proc/net/nfzr_kunit/rows").ok_or(ENOENT)?;
        let (mut round, mut pieces, mut went) = (1, 0, 0);
        loop {
            let len = file.read(&mut piece)?;
            if len == 0 {
                break;
            }
            seen.add(piece.get(..len).ok_or(EINVAL)?)?;
            pieces += 1;
            // Odd rows come and go, before and behind the reader's position: added in one round,
            // removed in the next.
            for number in [round, 600 - round] {
                world.add_row(number)?;
                if round > 1 {
                    let before = if number == round {
                        round - 2
                    } else {
                        602 - round
                    };
                    went += i32::from(world.rows.remove(before).is_some());
                }
            }
            round += 2;
        }
        drop(file);
        drop(states);
        let stayed = (0..600).step_by(2).all(|number| seen.0[number] == 1);
        let others = (1..600).step_by(2).all(|number| seen.0[number] <= 1);
        assert!(pieces > 10);
        assert_eq!(went, 2 * (pieces - 1));
        assert!(stayed);
        assert!(others);
        Ok(())
    }

    #[test]
    fn a_text_is_shown_whole() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        let mut text = [0; 64];
        let file = File::open(c"/proc/net/nfzr_kunit/text").ok_or(ENOENT)?;
        let len = file.read(&mut text)?;
        let end = file.read(&mut [0; 8])?;
        drop(file);
        drop(states);
        assert_eq!(text.get(..len), Some(b"set up: true\n".as_slice()));
        assert_eq!(end, 0);
        Ok(())
    }

    #[test]
    fn the_files_go_with_their_directory() -> Result {
        let drops = Drops::new()?;
        let world = World::new(ANY, &drops)?;
        let states = register(&world)?;
        let there = File::open(c"/proc/net/nfzr_kunit/text").is_some();
        drop(states);
        let gone = File::open(c"/proc/net/nfzr_kunit/text").is_none();
        drop(world);
        assert!(there);
        assert!(gone);
        assert_eq!(drops.count(), 1);
        Ok(())
    }
}
