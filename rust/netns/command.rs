// SPDX-License-Identifier: GPL-2.0

//! What may be written to `zones`: lines of `zone N max M`, `zone N max none` and `zone N flush`.
//!
//! Pure: also built and tested on the host.

/// What is to be done with a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Bound its connections; `None`: no more.
    Max(Option<u32>),
    /// End its connections.
    Flush,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The zone's id.
    pub(crate) zone: u16,
    /// What is to be done with it.
    pub(crate) action: Action,
}

/// Why a line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is no command: `EINVAL`.
    Syntax,
    /// A number is larger than it may be: `ERANGE`.
    Range,
}

/// The largest limit.
pub(crate) const MAX_LIMIT: u32 = i32::MAX as u32;

/// A decimal number: digits and nothing else.
fn number(word: &[u8], max: u32) -> Result<u32, Bad> {
    if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
        return Err(Bad::Syntax);
    }
    word.iter()
        .try_fold(0u32, |number, digit| {
            number
                .checked_mul(10)?
                .checked_add(u32::from(digit.wrapping_sub(b'0')))
        })
        .filter(|&number| number <= max)
        .ok_or(Bad::Range)
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn command(line: &[u8]) -> Result<Command, Bad> {
    let mut words = line.split(is_blank).filter(|word| !word.is_empty());
    let mut word = || words.next();
    let (Some(b"zone"), Some(zone), Some(verb), argument, None) =
        (word(), word(), word(), word(), word())
    else {
        return Err(Bad::Syntax);
    };
    let zone = number(zone, u16::MAX.into())?;
    let action = match (verb, argument) {
        (b"max", Some(b"none")) => Action::Max(None),
        (b"max", Some(max)) => Action::Max(Some(number(max, MAX_LIMIT)?)),
        (b"flush", None) => Action::Flush,
        _ => return Err(Bad::Syntax),
    };
    Ok(Command {
        zone: u16::try_from(zone).map_err(|_| Bad::Range)?,
        action,
    })
}

/// The commands of a text, of which each line is one; the last may lack its end.
pub(crate) fn commands(text: &[u8]) -> impl Iterator<Item = Result<Command, Bad>> + Clone + '_ {
    text.strip_suffix(b"\n")
        .unwrap_or(text)
        .split(|&byte| byte == b'\n')
        .map(command)
}
