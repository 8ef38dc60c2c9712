// SPDX-License-Identifier: GPL-2.0

//! The commands that `zones` accepts, one a line: `zone N max M`, `zone N max none` and
//! `zone N flush`.
//!
//! Pure: also built and tested on the host.

/// An operation on a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Limits the zone's connections; `None` removes the limit.
    Max(Option<u32>),
    /// Ends the zone's connections.
    Flush,
}

/// The command of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The zone's id.
    pub(crate) zone: u16,
    /// The operation on the zone.
    pub(crate) action: Action,
}

/// Why a line is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The line is not a command: `EINVAL`.
    Syntax,
    /// A number is too large: `ERANGE`.
    Range,
}

/// The largest limit.
pub(crate) const MAX_LIMIT: u32 = i32::MAX as u32;

/// Parses a decimal number of at most `max`: only digits are accepted.
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

/// Returns the commands of a text, one for each line. The last line may lack its newline.
pub(crate) fn commands(text: &[u8]) -> impl Iterator<Item = Result<Command, Bad>> + Clone + '_ {
    text.strip_suffix(b"\n")
        .unwrap_or(text)
        .split(|&byte| byte == b'\n')
        .map(command)
}
