//! The words of NIX_SSHOPTS, and the options given as data, on their way to [`Raw`].

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use ncc_transport::{Compression, Target, ssh_options_in};

use crate::{
    ConfigurationFiles, Ssh2Options,
    config::{Origin, Raw, Settings, Surroundings, bad},
    error::ConnectionError,
};

/// Options of ssh without a value that say what this transport does anyway: no terminal, no X11, no agent forwarded.
const TRUE_ANYWAY: &[u8] = b"Txak";

/// The configuration for a target: all sources, in the order in which they win.
///
/// For a jump host, `jump` has the jump hosts on the way to it, which may be none: then the target is the jump host, and what the
/// options say of the target alone is left out, as OpenSSH leaves it out for the ssh that it starts for a jump.
pub(crate) fn settings(
    target: &Target,
    options: &Ssh2Options,
    surroundings: &Surroundings,
    jump: Option<&[Target]>,
) -> Result<Settings, ConnectionError> {
    let mut raw = Raw::new(surroundings, target.host());
    if let Some(user) = target.user() {
        raw.set("user", vec![user.to_owned()], Origin::Options);
    }
    if let Some(port) = target.port() {
        raw.set("port", vec![port.to_string()], Origin::Options);
    }
    if let Some(before @ [_, ..]) = jump {
        let hops: Vec<String> = before.iter().map(ToString::to_string).collect();
        raw.set("proxyjump", vec![hops.join(",").replace('%', "%%")], Origin::Options);
    }
    let jump = jump.is_some();
    let files = words(&mut raw, options, jump)?.map_or_else(
        || options.configuration.clone(),
        |path| {
            if path.as_os_str() == "none" { ConfigurationFiles::None } else { ConfigurationFiles::File(path) }
        },
    );
    data(&mut raw, options, jump);
    read_files(&mut raw, &files)?;
    if raw.begin_final_pass() {
        read_files(&mut raw, &files)?;
    }
    Settings::resolve(&raw)
}

fn read_files(raw: &mut Raw<'_>, files: &ConfigurationFiles) -> Result<(), ConnectionError> {
    match files {
        ConfigurationFiles::None => Ok(()),
        ConfigurationFiles::File(path) => raw.read(path),
        ConfigurationFiles::UserAndSystem => {
            let user = raw.surroundings().home.join(".ssh/config");
            let system = raw.surroundings().system.join("ssh_config");
            raw.read_if_there(&user)?;
            raw.read_if_there(&system)
        }
    }
}

/// Sets what NIX_SSHOPTS says; returns the value of `-F`.
fn words(raw: &mut Raw<'_>, options: &Ssh2Options, jump: bool) -> Result<Option<PathBuf>, ConnectionError> {
    let mut file = None;
    for option in ssh_options_in(&options.extra) {
        let letter = char::from(option.letter);
        let value = match option.value {
            Some(value) => std::str::from_utf8(value)
                .map_err(|_| bad(&Origin::Words, format_args!("the value of '-{letter}' is not UTF-8")))?,
            None => "",
        };
        let mut set = |keyword: &str, value: &str| raw.set(keyword, vec![value.to_owned()], Origin::Words);
        match option.letter {
            b'F' => file = Some(PathBuf::from(value)),
            b'o' if jump && !is_for_jumps_too(value) => {}
            b'o' => raw.set_line(value, Origin::Words)?,
            // Of the target alone.
            b'i' | b'p' | b'l' | b'J' | b'c' if jump => {}
            b'i' => set("identityfile", value),
            b'p' => set("port", value),
            b'l' => set("user", value),
            b'J' => set("proxyjump", value),
            b'c' => set("ciphers", value),
            b'C' => set("compression", "yes"),
            b'4' => set("addressfamily", "inet"),
            b'6' => set("addressfamily", "inet6"),
            letter if TRUE_ANYWAY.contains(&letter) => {}
            _ => {
                return Err(bad(
                    &Origin::Words,
                    format_args!("'-{letter}' is not supported without OpenSSH's own program"),
                ));
            }
        }
    }
    Ok(file)
}

/// What of `-o` also counts for jump hosts: how far others are trusted, and who is asked.
fn is_for_jumps_too(setting: &str) -> bool {
    let setting = setting.trim_start().to_ascii_lowercase();
    [
        "stricthostkeychecking",
        "userknownhostsfile",
        "globalknownhostsfile",
        "hashknownhosts",
        "batchmode",
        "connecttimeout",
        "serveralive",
        "identityagent",
        "ignoreunknown",
    ]
    .iter()
    .any(|keyword| setting.starts_with(keyword))
}

fn data(raw: &mut Raw<'_>, options: &Ssh2Options, jump: bool) {
    let literal =
        |path: &PathBuf| vec![String::from_utf8_lossy(path.as_os_str().as_bytes()).replace('%', "%%")];
    if options.compression == Compression::On && !jump {
        raw.set("compression", vec!["yes".to_owned()], Origin::Options);
    }
    if let Some(path) = options.identity_file.as_ref().filter(|_| !jump) {
        raw.set("identityfile", literal(path), Origin::Options);
    }
    if let Some(path) = &options.known_hosts_file {
        raw.set("userknownhostsfile", literal(path), Origin::Options);
    }
}
