//! A byte of the protocol that arrives as another: behind the encryption, where nothing but the protocol's own checks can tell.

use anyhow::Result;

use super::course::Course;
use super::report::Tale;
use super::workshop::{self, Workshop};
use super::{check, limits};
use crate::exec;
use crate::relay::Way;

/// Where the wrapper lies.
const WRAPPER: &str = "/lab/garbled";

/// One run.
pub(super) fn run(workshop: &Workshop, course: &Course) -> Result<Tale> {
    let destination = &workshop.destination;
    let far = workshop.far(course, destination);
    let after = course.point.of(workshop.carried(course, course.way)?);
    let daemon = workshop::daemon(course, destination)?;
    // dd takes not a byte more than it is told.
    let filter = format!(
        "{{ dd bs=4096 count={} iflag=fullblock; dd bs=1 count={}; dd bs=1 count=1 | tr '\\000-\\377' '\\001-\\377\\000'; \
         exec cat; }} 2>/dev/null",
        after / 4096,
        after % 4096
    );
    let redirected = if course.way == Way::Up { format!("< <({filter})") } else { format!("> >({filter})") };
    let server = workshop::server(course);
    far.instance.script(&WRAPPER[1..], &format!("exec {server} \"$@\" {redirected}\n"))?;
    let mut command = workshop.command(course, destination, far.server.port(), Some(WRAPPER));
    let copy = exec::capture(&mut command)?;
    check::silence([&workshop.source, destination], daemon.as_ref())?;
    drop(daemon);
    // What it does to a name or a time, nobody can know to be wrong.
    let wrong = check::conduct(&copy, &["exit 0", "exit 1", "exit 3", "exit 5", "exit 6"]);
    let tale = limits::finish(workshop, course, destination, &copy, wrong, "")?;
    workshop.sweep()?;
    Ok(tale)
}
