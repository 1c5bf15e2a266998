//! Variables of the environment.

use std::env;

/// A variable, if it says anything.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
