//! The words of NIX_SSHOPTS, and the options given as data, on their way to [`Raw`].

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use ncc_transport::{Compression, Target, ssh_options_in};

use crate::{
    ConfigurationFiles, Ssh2Options,
    config::{Origin, Raw, Settings, Source, Surroundings, bad, unsupported},
    error::ConnectionError,
};

/// Options of ssh without a value that say what this transport does anyway: no terminal, no X11, no agent forwarded, and it says
/// nothing on stderr by itself.
const TRUE_ANYWAY: &[u8] = b"Txakq";

/// The configuration for a target: all sources, in the order in which they win.
///
/// For a jump host, `jump` has the jump hosts on the way to it, which may be none: then the target is the jump host. What counts for it
/// is the configuration files. OpenSSH passes none of its options on to the ssh that it starts for a jump, and neither are they here:
/// who switches a check off for a new machine does not mean the bastion. Only what makes it stricter, or gives up sooner, counts.
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
    if !jump {
        data(&mut raw, options);
    }
    read_files(&mut raw, &files)?;
    if raw.begin_final_pass()? {
        read_files(&mut raw, &files)?;
    }
    let pinned = options.pinned_host_key.clone().filter(|_| !jump);
    Ok(Settings { pinned, ..Settings::resolve(&raw)? })
}

fn read_files(raw: &mut Raw<'_>, files: &ConfigurationFiles) -> Result<(), ConnectionError> {
    match files {
        ConfigurationFiles::None => Ok(()),
        ConfigurationFiles::File(path) => raw.read(path, Source::NAMED),
        ConfigurationFiles::UserAndSystem => {
            if let Some(user) = raw.surroundings().in_ssh_directory("config") {
                let _ = raw.read_if_there(&user, Source::USER)?;
            }
            // The second one is SUSE's, where /etc has only what the administrator changes.
            for directory in [raw.surroundings().system.clone(), "/usr/etc/ssh".into()] {
                if raw.read_if_there(&directory.join("ssh_config"), Source::SYSTEM)? {
                    break;
                }
            }
            Ok(())
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
        let mut set = |keyword: &str, value: &str| {
            if !jump {
                raw.set(keyword, vec![value.to_owned()], Origin::Words);
            }
        };
        match option.letter {
            b'F' => file = Some(PathBuf::from(value)),
            b'o' if jump && !is_stricter(value) => {}
            b'o' => raw.set_line(value, Origin::Words)?,
            b'i' => set("identityfile", value),
            b'p' => set("port", value),
            b'l' => set("user", value),
            b'J' => set("proxyjump", value),
            b'c' => set("ciphers", value),
            b'm' => set("macs", value),
            b'C' => set("compression", "yes"),
            b'4' => set("addressfamily", "inet"),
            b'6' => set("addressfamily", "inet6"),
            letter if TRUE_ANYWAY.contains(&letter) => {}
            _ => return Err(unsupported(&Origin::Words, format_args!("'-{letter}'"))),
        }
    }
    Ok(file)
}

/// Whether a value of `-o` also counts for jump hosts: it asks for more than it allows, or for less patience; or it only says how the
/// files are to be read.
fn is_stricter(setting: &str) -> bool {
    let setting = setting.trim().to_ascii_lowercase();
    let (keyword, value) = setting.split_once(['=', ' ', '\t']).unwrap_or((&setting, ""));
    let value = value.trim_start_matches(['=', ' ', '\t']).trim_matches('"');
    match keyword {
        "connecttimeout" | "serveraliveinterval" | "serveralivecountmax" | "ignoreunknown" => true,
        "batchmode" | "stricthostkeychecking" => ["yes", "true"].contains(&value),
        _ => false,
    }
}

/// Sets what the caller's options say of the target.
fn data(raw: &mut Raw<'_>, options: &Ssh2Options) {
    let literal =
        |path: &PathBuf| vec![String::from_utf8_lossy(path.as_os_str().as_bytes()).replace('%', "%%")];
    if options.compression == Compression::On {
        raw.set("compression", vec!["yes".to_owned()], Origin::Options);
    }
    if let Some(path) = &options.identity_file {
        raw.set("identityfile", literal(path), Origin::Options);
    }
}
