// SPDX-License-Identifier: GPL-2.0

//! Enums whose variants have names in /proc.
//!
//! Pure: also built and tested on the host.

/// An enum whose variants have names in /proc.
macro_rules! named_enum {
    (
        $(#[$type_doc:meta])*
        $type:ident {
            $($(#[$doc:meta])* $variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $type {
            $($(#[$doc])* $variant,)*
        }

        impl $type {
            /// All variants, in the order of their numbers.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number of variants.
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// Returns the name in /proc.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}
pub(crate) use named_enum;
