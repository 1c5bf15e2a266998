//! Fetches Debian packages of any release with this machine's own `apt-get`, without touching this machine's packages.
//!
//! A private configuration with an empty status file makes apt resolve from nothing. Signatures are checked as usual.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::exec;

/// Where the keys of the Debian archive are on a Debian machine.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Slow lines exist; lines that never answer too.
const FETCH_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Suites by which an entry of the machine's sources is recognised as the Debian archive itself.
const SUITES: [&str; 12] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "oldoldstable",
    "stable",
    "testing",
    "unstable",
];

/// A release of Debian, as apt sees it in a folder of its own.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the package lists of `suite`, also of `foreign` architectures. `folder` is kept between runs, so that only what changed is fetched.
    pub(crate) fn update(folder: &Path, suite: &str, foreign: &[&str]) -> Result<Self> {
        ensure!(exec::available("apt-get"), "no apt-get here: not a Debian machine");
        let mirror = mirror()?;
        for sub in ["state/lists/partial", "cache/archives/partial", "parts"] {
            exec::make_folder(&folder.join(sub))?;
        }
        exec::write_file(&folder.join("state/status"), "")?;
        // Releases past their support keep their last, long expired, Release file.
        exec::write_file(
            &folder.join("sources.list"),
            format!("deb [check-valid-until=no signed-by={}] {} {suite} main\n", mirror.keyring, mirror.uri),
        )?;
        let at = folder.display();
        let foreign: Vec<String> =
            foreign.iter().map(|name| format!("APT::Architectures:: \"{name}\";\n")).collect();
        let foreign = foreign.concat();
        exec::write_file(
            &folder.join("apt.conf"),
            format!(
                "Dir::Etc::sourcelist \"{at}/sources.list\";\n\
                 Dir::Etc::sourceparts \"{at}/parts\";\n\
                 Dir::Etc::preferences \"{at}/none\";\n\
                 Dir::Etc::preferencesparts \"{at}/parts\";\n\
                 Dir::State \"{at}/state\";\n\
                 Dir::State::status \"{at}/state/status\";\n\
                 Dir::Cache \"{at}/cache\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::Check-Valid-Until \"false\";\n\
                 Acquire::Retries \"3\";\n\
                 APT::Install-Recommends \"false\";\n\
                 APT::Sandbox::User \"root\";\n{foreign}"
            ),
        )?;
        let apt = Self { folder: folder.to_path_buf() };
        apt.run(&["--quiet", "--error-on=any", "update"], &apt.folder)
            .with_context(|| format!("cannot read the package lists of {suite}"))?;
        Ok(apt)
    }

    /// Names and versions of everything that installing `wanted` on an empty system takes.
    pub(crate) fn resolve(&self, wanted: &[&str]) -> Result<BTreeMap<String, String>> {
        let mut arguments = vec!["--quiet", "--yes", "--simulate", "install"];
        arguments.extend(wanted);
        let plan = self.run(&arguments, &self.folder)?;
        let mut packages = BTreeMap::new();
        // Lines such as: Inst nix-bin (2.8.0-1.1+b1 Debian:12.11/oldstable [amd64])
        for line in plan.lines() {
            let mut words = line.split_whitespace();
            if let (Some("Inst"), Some(name), Some(version)) = (words.next(), words.next(), words.next()) {
                packages.insert(name.to_owned(), version.trim_start_matches('(').to_owned());
            }
        }
        ensure!(!packages.is_empty(), "apt-get plans nothing for {wanted:?}:\n{plan}");
        Ok(packages)
    }

    /// Downloads these packages and gives their files.
    pub(crate) fn download(&self, packages: &BTreeMap<String, String>) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("debs");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        exec::make_folder(&folder)?;
        let mut arguments = vec!["--quiet".to_owned(), "download".to_owned()];
        arguments.extend(packages.iter().map(|(name, version)| format!("{name}={version}")));
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.run(&words, &folder)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            files.push(entry?.path());
        }
        files.sort();
        ensure!(files.len() == packages.len(), "{} packages asked for, {} came", packages.len(), files.len());
        Ok(files)
    }

    fn run(&self, arguments: &[&str], folder: &Path) -> Result<String> {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C")
            .current_dir(folder)
            .args(arguments);
        Ok(exec::capture_within(&mut command, FETCH_LIMIT, Vec::new())?.success()?.text())
    }
}

/// The archive that this machine's own packages come from.
struct Mirror {
    uri: String,
    keyring: String,
}

/// Takes the mirror from the machine's sources: no host is named in this project.
fn mirror() -> Result<Mirror> {
    if let Ok(uri) = std::env::var("NCC_DEBIAN_MIRROR") {
        return Ok(Mirror { uri, keyring: KEYRING.to_owned() });
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => from_lines(&text),
            Some("sources") => from_stanzas(&text),
            _ => None,
        };
        if let Some((uri, signed_by)) = found {
            let keyring =
                signed_by.filter(|path| Path::new(path).is_absolute()).unwrap_or_else(|| KEYRING.to_owned());
            ensure!(
                Path::new(&keyring).exists(),
                "no keys of the Debian archive here ({keyring} is missing)"
            );
            return Ok(Mirror { uri, keyring });
        }
    }
    bail!("no Debian archive in this machine's apt sources (NCC_DEBIAN_MIRROR may name one)");
}

/// One-line style: `deb [options] URI SUITE COMPONENT...`.
fn from_lines(text: &str) -> Option<(String, Option<String>)> {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(mut rest) = line.strip_prefix("deb ").map(str::trim_start) else { continue };
        let mut signed_by = None;
        if let Some((options, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            signed_by = options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="))
                .map(str::to_owned);
            rest = after.trim_start();
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [uri, suite, components @ ..] = words.as_slice()
            && SUITES.contains(suite)
            && components.contains(&"main")
        {
            return Some(((*uri).to_owned(), signed_by));
        }
    }
    None
}

/// deb822 style: stanzas of `Field: value`, separated by empty lines.
fn from_stanzas(text: &str) -> Option<(String, Option<String>)> {
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
        };
        let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
        if words("Types").any(|word| word == "deb")
            && words("Suites").any(|word| SUITES.contains(&word))
            && words("Components").any(|word| word == "main")
            && let Some(uri) = words("URIs").next()
        {
            return Some((uri.to_owned(), field("Signed-By").map(str::to_owned)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_entries() {
        let text = "# deb http://x.example/debian trixie main\n\
                    deb http://y.example/other stable-foo main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://z.example/debian trixie main contrib\n";
        assert_eq!(from_lines(text), Some(("http://z.example/debian".into(), Some("/k.gpg".into()))));
    }

    #[test]
    fn stanzas() {
        let text = "Types: deb\nURIs: http://a.example/x\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\n# a comment\nURIs: http://b.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /k.gpg\n";
        assert_eq!(from_stanzas(text), Some(("http://b.example/debian".into(), Some("/k.gpg".into()))));
    }
}
