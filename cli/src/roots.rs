//! From what a person types to store paths.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use ncc_local_store::LocalStoreConfig;
use ncc_progress::{Console, Importance};
use ncc_store::{StoreDir, StorePath, StorePathError};

/// As many links as Linux follows.
const LINK_LIMIT: usize = 40;

/// How long a list may keep the program waiting before it says what it waits for.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// The longest line of a list. No path is longer, and a device or an archive has no lines at all.
const LONGEST_LINE: u64 = 64 * 1024;

/// The most words that are taken: of more the closure would not fit into memory either.
const MOST_WORDS: usize = 20_000_000;

/// What ends a path in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Separated {
    ByLines,
    /// As `nix` reads standard input.
    ByBlanks,
}

/// All words that stand for paths: arguments, the lines of files given as `@FILE`, and those of stdin.
pub(crate) async fn words(
    arguments: &[OsString],
    stdin: Option<Separated>,
    console: &Console,
) -> Result<Vec<OsString>, RootError> {
    let mut words = Vec::new();
    for argument in arguments {
        match argument.as_bytes().strip_prefix(b"@") {
            Some(name) => {
                let path = PathBuf::from(OsStr::from_bytes(name));
                let name = format!("'{}'", path.display());
                let open = move || File::open(path);
                words = read(words, name, open, Separated::ByLines, console).await?;
            }
            None => words.push(argument.clone()),
        }
    }
    if let Some(separated) = stdin {
        words = read(words, "standard input".to_owned(), || Ok(io::stdin()), separated, console).await?;
    }
    Ok(words)
}

/// Adds the lines of a list, which may be a pipe that nobody writes to: then it is said what is waited for.
async fn read<R: Read>(
    words: Vec<OsString>,
    name: String,
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    separated: Separated,
    console: &Console,
) -> Result<Vec<OsString>, RootError> {
    let list = name.clone();
    let mut reading = tokio::task::spawn_blocking(move || {
        let source = open().map_err(|source| RootError::List { list: list.clone(), source })?;
        lines(words, BufReader::new(source), separated, &list)
    });
    let read = match tokio::time::timeout(SAY_AFTER, &mut reading).await {
        Ok(read) => read,
        Err(_) => {
            console.say(Importance::Notice, &format!("waiting for paths from {name}"));
            reading.await
        }
    };
    read.unwrap_or_else(|error| Err(RootError::List { list: name, source: error.into() }))
}

fn lines(
    mut words: Vec<OsString>,
    mut source: impl BufRead,
    separated: Separated,
    list: &str,
) -> Result<Vec<OsString>, RootError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut source).take(LONGEST_LINE).read_until(b'\n', &mut line);
        let count = count.map_err(|source| RootError::List { list: list.to_owned(), source })?;
        if count == 0 {
            return Ok(words);
        }
        if line.len() as u64 == LONGEST_LINE || words.len() == MOST_WORDS {
            return Err(RootError::NotAList { list: list.to_owned() });
        }
        let found: Box<dyn Iterator<Item = &[u8]>> = match separated {
            Separated::ByLines => Box::new([line.trim_ascii()].into_iter()),
            Separated::ByBlanks => Box::new(line.split(u8::is_ascii_whitespace)),
        };
        words.extend(found.filter(|word| !word.is_empty()).map(|word| OsStr::from_bytes(word).to_owned()));
    }
}

/// Why an argument is no path to copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("path '{}' is not in the Nix store", path.display())]
    NotInStore { path: PathBuf },
    #[error("path '{}' is not in the Nix store: it leads to '{}'", path.display(), end.display())]
    LeadsElsewhere { path: PathBuf, end: PathBuf },
    #[error("path '{}' leads to no store path", path.display())]
    NoStorePath { path: PathBuf, source: StorePathError },
    #[error("path '{}' cannot be followed", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("path '{}' is not UTF-8, as every store path is", path.display())]
    NotText { path: PathBuf },
    #[error("the paths in {list} cannot be read")]
    List { list: String, source: io::Error },
    #[error("{list} is no list of paths, one per line: it has lines of more than 64 KiB, or far too many")]
    NotAList { list: String },
    #[error("path '{}' has too many levels of symbolic links", path.display())]
    TooManyLinks { path: PathBuf },
}

/// Where the store is that paths are copied from.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Its logical directory.
    pub(crate) store_dir: &'a StoreDir,
    /// The directory on this machine that has files of this name, if there is one.
    pub(crate) files: Option<&'a Path>,
}

impl<'a> From<&'a LocalStoreConfig> for Place<'a> {
    fn from(store: &'a LocalStoreConfig) -> Self {
        Self { store_dir: &store.store_dir, files: Some(&store.real_store_dir) }
    }
}

/// Follows links on this machine until `argument` is inside of the store, and cuts it to the store path.
///
/// The store path itself need not exist here: with `--from` it usually does not.
pub(crate) fn resolve(argument: &OsStr, place: Place<'_>) -> Result<StorePath, RootError> {
    let path = Path::new(argument);
    let unreadable = |source| RootError::Unreadable { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let mut left: VecDeque<OsString> = components(&absolute);
    let mut current = PathBuf::from("/");
    let mut links = 0;
    loop {
        if let Some(inside) = inside(&current, place) {
            let text = inside.to_str().ok_or_else(|| RootError::NotText { path: path.to_owned() })?;
            return place
                .store_dir
                .containing(&format!("{}/{text}", place.store_dir))
                .map_err(|source| RootError::NoStorePath { path: path.to_owned(), source });
        }
        let Some(next) = left.pop_front() else {
            return Err(if current == absolute {
                RootError::NotInStore { path: absolute }
            } else {
                RootError::LeadsElsewhere { path: path.to_owned(), end: current }
            });
        };
        if next == ".." {
            current.pop();
            continue;
        }
        current.push(next);
        if inside(&current, place).is_some() {
            // What a path of the store leads to, if it is a link itself, is no business of ours.
            continue;
        }
        match fs::read_link(&current) {
            Ok(target) => {
                links += 1;
                if links > LINK_LIMIT {
                    return Err(RootError::TooManyLinks { path: path.to_owned() });
                }
                current.pop();
                if target.is_absolute() {
                    current = PathBuf::from("/");
                }
                for component in components(&target).into_iter().rev() {
                    left.push_front(component);
                }
            }
            // No link, or nothing at all: then it must be in the store by its text.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(unreadable(error));
            }
            Err(error) => return Err(unreadable(error)),
        }
    }
}

/// The store path that a word of `nix copy` stands for, by its rule: `argument` may be a link, and what it leads to may be one, but no
/// folder on the way there is followed, and `..` is taken by its text. What that does not lead into the store is a flake.
pub(crate) fn led_to(argument: &OsStr, place: Place<'_>) -> Option<StorePath> {
    let mut current = std::path::absolute(argument).ok()?;
    for _ in 0..=LINK_LIMIT {
        current = Path::new("/").join(by_text(&current));
        if let Some(inside) = inside(&current, place) {
            return place.store_dir.containing(&format!("{}/{}", place.store_dir, inside.to_str()?)).ok();
        }
        let target = fs::read_link(&current).ok()?;
        current = current.parent()?.join(target);
    }
    None
}

fn by_text(path: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    for component in components(path) {
        if component == ".." {
            found.pop();
        } else {
            found.push(component);
        }
    }
    found
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// What stands behind the store directory, logical or real, if anything does.
fn inside<'a>(path: &'a Path, place: Place<'_>) -> Option<&'a OsStr> {
    [Some(Path::new(place.store_dir.as_str())), place.files]
        .into_iter()
        .flatten()
        .find_map(|directory| path.strip_prefix(directory).ok())
        .map(Path::as_os_str)
        .filter(|rest| !rest.as_bytes().is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PATH: &str = "/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi";

    fn resolved(argument: &Path) -> Result<String, RootError> {
        let store = LocalStoreConfig::chroot("/nowhere");
        resolve(argument.as_os_str(), (&store).into()).map(|path| store.store_dir.full(&path))
    }

    #[test]
    fn paths_below_a_store_path_are_cut() {
        assert_eq!(resolved(Path::new(PATH)).unwrap(), PATH);
        assert_eq!(resolved(&Path::new(PATH).join("bin/hi")).unwrap(), PATH);
        assert_eq!(resolved(Path::new(&format!("{PATH}/"))).unwrap(), PATH);
        let real = format!("/nowhere{PATH}/bin");
        assert_eq!(resolved(Path::new(&real)).unwrap(), PATH);
    }

    #[test]
    fn links_are_followed_wherever_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink(PATH, at("result")).unwrap();
        symlink("result", at("indirect")).unwrap();
        fs::create_dir(at("profile")).unwrap();
        symlink("../result/bin/hi", at("profile/hi")).unwrap();
        symlink(at("profile"), at("current")).unwrap();
        for name in ["result", "indirect", "profile/hi", "current/hi", "result/share", "profile/../result"] {
            assert_eq!(resolved(&at(name)).unwrap(), PATH, "{name}");
        }
    }

    #[test]
    fn nix_follows_the_link_that_it_is_given_and_no_folder() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink(PATH, at("result")).unwrap();
        symlink("./x/../result", at("indirect")).unwrap();
        fs::create_dir(at("flake")).unwrap();
        symlink("../result/bin/hi", at("flake/hi")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let store = LocalStoreConfig::chroot("/nowhere");
        let led =
            |word: &Path| led_to(word.as_os_str(), (&store).into()).map(|path| store.store_dir.full(&path));
        for name in ["result", "result/", "indirect", "flake/../result", "gone/../result"] {
            assert_eq!(led(&at(name)).as_deref(), Some(PATH), "{name}");
        }
        assert_eq!(led(Path::new(&format!("{PATH}/share/../bin"))).as_deref(), Some(PATH));
        for name in ["flake", "result/bin", "flake/hi", "loop", "gone", "."] {
            assert_eq!(led(&at(name)), None, "{name}");
        }
        for word in ["/nix/store", "/nix/store/x", "/nix/store/../etc", "nixpkgs/x", "github:a/b"] {
            assert_eq!(led(Path::new(word)), None, "{word}");
        }
    }

    #[test]
    fn a_list_has_a_path_per_line() {
        let text = b"/nix/store/a\r\n\n  /nix/store/b \n/nix/store/c";
        let words = lines(vec!["/nix/store/z".into()], &text[..], Separated::ByLines, "a list").unwrap();
        assert_eq!(words, ["/nix/store/z", "/nix/store/a", "/nix/store/b", "/nix/store/c"]);
        let text = b" a  b\tc\nd\n";
        assert_eq!(
            lines(Vec::new(), &text[..], Separated::ByBlanks, "a list").unwrap(),
            ["a", "b", "c", "d"]
        );
        assert_eq!(lines(Vec::new(), &text[..], Separated::ByLines, "a list").unwrap(), ["a  b\tc", "d"]);
        // As a device.
        let endless = BufReader::new(io::repeat(0));
        assert!(matches!(
            lines(Vec::new(), endless, Separated::ByLines, "a list"),
            Err(RootError::NotAList { .. })
        ));
    }

    #[test]
    fn a_path_of_the_store_that_is_a_link_stands_for_itself() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStoreConfig::chroot(directory.path());
        fs::create_dir_all(&store.real_store_dir).unwrap();
        let name = "nlhn6cma43vk5l44cgr8sw3ykiir1wmm-link";
        symlink("/etc/hostname", store.real_store_dir.join(name)).unwrap();
        let path = resolve(store.real_store_dir.join(name).as_os_str(), (&store).into()).unwrap();
        assert_eq!(path.to_string(), name);
    }

    #[test]
    fn what_is_elsewhere_is_refused_with_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(matches!(resolved(&at("missing")), Err(RootError::NotInStore { .. })));
        symlink("/etc/hostname", at("link")).unwrap();
        assert!(matches!(resolved(&at("link")), Err(RootError::LeadsElsewhere { .. })));
        symlink("loop", at("loop")).unwrap();
        assert!(matches!(resolved(&at("loop")), Err(RootError::TooManyLinks { .. })));
        assert!(matches!(resolved(Path::new("/nix/store")), Err(RootError::NotInStore { .. })));
        assert!(matches!(resolved(Path::new("/nix/store/x")), Err(RootError::NoStorePath { .. })));
    }
}
