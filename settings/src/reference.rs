//! The texts that name stores.
//!
//! The grammar is that of `StoreReference::parse` in Nix (`src/libstore/store-reference.cc`).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{ParameterRemark, Parameters, SettingsError, environment::normal, parameters::decoded};

/// What a text says about which store is meant, before anything on the machine is looked at.
///
/// | Text | Kind |
/// |---|---|
/// | empty, `auto` | [`StoreKind::Auto`] |
/// | `local`, `local:`, `local://` | [`StoreKind::Local`] without a root |
/// | `/dir`, `./dir`, `a/b` (from the working directory), `local:///dir` | [`StoreKind::Local`] with that root |
/// | `daemon`, `unix://`, `unix:///socket` | [`StoreKind::Daemon`] |
/// | `ssh://host` | [`StoreKind::Ssh`] |
/// | `ssh-ng://host` | [`StoreKind::SshNg`] |
/// | `https://host`, `s3://bucket`, `file:///dir`, `dummy://`, ... | [`StoreKind::Foreign`] |
///
/// Each may be followed by `?` and [`Parameters`]. Paths inside of URIs (those with a colon) are percent-encoded, plain
/// directories are not.
///
/// ```
/// use std::path::Path;
/// use ncc_settings::{StoreKind, StoreReference};
///
/// let reference = StoreReference::parse("./store?read-only=true&shiny=1", Path::new("/home/alice"))?;
/// assert_eq!(reference.kind, StoreKind::Local { root: Some("/home/alice/store".into()) });
/// assert_eq!(reference.parameters.value("read-only"), Some("true"));
/// let remarks = reference.review()?;
/// assert_eq!(remarks[0].to_string(), "the parameter 'shiny' of the store is not known and ignored");
/// # Ok::<(), ncc_settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReference {
    /// The whole text, as written.
    pub text: String,
    /// Which kind of store it names.
    pub kind: StoreKind,
    /// What stands behind `?`.
    pub parameters: Parameters,
}

/// The kinds of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// Whichever of `local` and `daemon` this user can use.
    Auto,
    /// A store on this disk, opened by this very process.
    Local {
        /// The directory that holds the store, as `/` holds the one of the system.
        root: Option<PathBuf>,
    },
    /// A store on this machine, opened by a daemon.
    Daemon {
        /// Its socket, if it is not the usual one.
        socket: Option<PathBuf>,
    },
    /// A store on another machine, through `nix-store --serve`. Host and parameters are in
    /// [`StoreReference::text`].
    Ssh,
    /// A store on another machine, through `nix-daemon --stdio`.
    SshNg,
    /// A kind that Nix has and this crate only knows by name.
    Foreign {
        /// What stands before the colon.
        scheme: String,
        /// What it is.
        what: &'static str,
    },
}

const FOREIGN: [(&str, &str); 7] = [
    ("file", "a binary cache in a directory"),
    ("http", "a binary cache"),
    ("https", "a binary cache"),
    ("s3", "a binary cache in S3"),
    ("dummy", "a store without content"),
    ("local-overlay", "a store laid over another one"),
    ("mounted-ssh-ng", "a store on another machine whose files are mounted here"),
];

impl StoreReference {
    /// Reads a text. Relative directories start at `working_directory`.
    ///
    /// # Errors
    /// [`SettingsError`]: what names no store, or escapes that are none.
    pub fn parse(text: &str, working_directory: &Path) -> Result<Self, SettingsError> {
        if text.contains('\0') {
            return Err(SettingsError::NotAStore { text: text.to_owned() });
        }
        let (kind, query) = match scheme(text) {
            Some((scheme, rest)) => {
                let rest = match scheme {
                    // The transport reads the host, which may hold a '#'.
                    "ssh" | "ssh-ng" => rest,
                    _ => rest.split('#').next().unwrap_or_default(),
                };
                let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
                (
                    Self::kind_of_uri(
                        text,
                        scheme,
                        base.strip_prefix("//").unwrap_or(base),
                        working_directory,
                    )?,
                    query,
                )
            }
            None => {
                let (base, query) = text.split_once('?').unwrap_or((text, ""));
                (Self::kind_of_word(base, working_directory)?, query)
            }
        };
        Ok(Self { text: text.to_owned(), kind, parameters: Parameters::parse(query)? })
    }

    fn kind_of_uri(
        text: &str,
        scheme: &str,
        rest: &str,
        working_directory: &Path,
    ) -> Result<StoreKind, SettingsError> {
        let path = || Ok(Some(decoded(rest)?).filter(|path| !path.is_empty()).map(PathBuf::from));
        Ok(match scheme {
            "local" => match path()? {
                Some(root) if root.is_relative() => {
                    return Err(SettingsError::Relative { path: rest.to_owned(), store: text.to_owned() });
                }
                root => StoreKind::Local { root: root.as_deref().map(normal) },
            },
            "unix" => {
                StoreKind::Daemon { socket: path()?.map(|socket| normal(&working_directory.join(socket))) }
            }
            "ssh" => StoreKind::Ssh,
            "ssh-ng" => StoreKind::SshNg,
            scheme => match FOREIGN.iter().find(|(known, _)| *known == scheme) {
                Some((_, what)) => StoreKind::Foreign { scheme: scheme.to_owned(), what },
                None => return Err(SettingsError::UnknownScheme { scheme: scheme.to_owned() }),
            },
        })
    }

    fn kind_of_word(base: &str, working_directory: &Path) -> Result<StoreKind, SettingsError> {
        Ok(match base {
            "" | "auto" => StoreKind::Auto,
            "local" => StoreKind::Local { root: None },
            "daemon" => StoreKind::Daemon { socket: None },
            _ if base.contains("://") => return Err(SettingsError::NotAStore { text: base.to_owned() }),
            _ if base.contains('/') => StoreKind::Local { root: Some(normal(&working_directory.join(base))) },
            // Nix refuses single words too, so that it may have more of them later.
            _ => return Err(SettingsError::BareWord { text: base.to_owned() }),
        })
    }

    /// What there is to say about the parameters.
    ///
    /// # Errors
    /// [`SettingsError::Parameter`], for a value that is not of the form that the parameter has in Nix.
    pub fn review(&self) -> Result<Vec<ParameterRemark>, SettingsError> {
        self.parameters.review(&self.kind)
    }
}

impl fmt::Display for StoreReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "auto" } else { &self.text })
    }
}

/// Splits off what stands before the first colon, if that is the scheme of a URI.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut characters = scheme.bytes();
    let fits = characters.next()?.is_ascii_alphabetic()
        && characters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    fits.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> Result<StoreReference, SettingsError> {
        StoreReference::parse(text, Path::new("/w/d"))
    }

    fn local(root: &str) -> StoreKind {
        StoreKind::Local { root: Some(root.into()) }
    }

    fn foreign(scheme: &str) -> StoreKind {
        let (_, what) = FOREIGN.into_iter().find(|(known, _)| *known == scheme).unwrap();
        StoreKind::Foreign { scheme: scheme.to_owned(), what }
    }

    #[rstest]
    #[case::empty("", StoreKind::Auto)]
    #[case::auto("auto", StoreKind::Auto)]
    #[case::parameters_alone("?root=/x", StoreKind::Auto)]
    #[case::local("local", StoreKind::Local { root: None })]
    #[case::local_colon("local:", StoreKind::Local { root: None })]
    #[case::local_authority("local://", StoreKind::Local { root: None })]
    #[case::local_root("local?root=/mnt", StoreKind::Local { root: None })]
    #[case::directory("/mnt/x", local("/mnt/x"))]
    #[case::directory_is_not_decoded("/mnt/%20", local("/mnt/%20"))]
    #[case::directory_is_normal("/mnt//x/./../y/", local("/mnt/y"))]
    #[case::directory_with_hash("/mnt/#1", local("/mnt/#1"))]
    #[case::relative("./x", local("/w/d/x"))]
    #[case::relative_up("../x?read-only=true", local("/w/x"))]
    #[case::relative_without_dot("x/y", local("/w/d/x/y"))]
    #[case::this_directory("./", local("/w/d"))]
    #[case::uri_is_decoded("local:///a%20b", local("/a b"))]
    #[case::uri_without_slashes("local:/a", local("/a"))]
    #[case::uri_with_fragment("local:///a#b?c", local("/a"))]
    #[case::daemon("daemon", StoreKind::Daemon { socket: None })]
    #[case::unix("unix://", StoreKind::Daemon { socket: None })]
    #[case::unix_socket("unix:///run/s%2fx?root=/r", StoreKind::Daemon { socket: Some("/run/s/x".into()) })]
    #[case::unix_relative("unix://run/s", StoreKind::Daemon { socket: Some("/w/d/run/s".into()) })]
    #[case::ssh("ssh://alice@host:22?compress=true", StoreKind::Ssh)]
    #[case::ssh_ipv6("ssh://[fe80::1%25eth0]", StoreKind::Ssh)]
    #[case::ssh_ng("ssh-ng://host", StoreKind::SshNg)]
    #[case::cache("https://cache.nixos.org", foreign("https"))]
    #[case::file("file:///srv/cache?secret-key=/k", foreign("file"))]
    #[case::dummy("dummy://", foreign("dummy"))]
    #[case::s3("s3://bucket?region=eu-west-1", foreign("s3"))]
    #[case::mounted("mounted-ssh-ng://host", foreign("mounted-ssh-ng"))]
    fn texts_name_stores(#[case] text: &str, #[case] kind: StoreKind) {
        let reference = parse(text).unwrap();
        assert_eq!((reference.kind, reference.text.as_str()), (kind, text));
    }

    #[rstest]
    #[case::word("lokal", "'lokal' is not the name of a store; a directory is written './lokal'")]
    #[case::scheme("gopher://x", "no kind of store is called 'gopher'")]
    #[case::colon("d:", "no kind of store is called 'd'")]
    #[case::no_scheme("://x", "'://x' is not the name of a store")]
    #[case::relative_in_uri("local://x/y", "'x/y' in the store 'local://x/y' is not an absolute path")]
    #[case::nul("/a\0b", "'/a\\0b' is not the name of a store")]
    #[case::escape("local?root=/%2", "'/%2' has a percent sign that begins no valid escape")]
    #[case::escape_of_nothing("local?root=/%zz", "'/%zz' has a percent sign that begins no valid escape")]
    #[case::escaped_nul("local?root=/%00", "'/%00' has a percent sign that begins no valid escape")]
    #[case::sign_is_no_digit("local?root=/%+1", "'/%+1' has a percent sign that begins no valid escape")]
    #[case::not_utf8("local:///%ff", "'/%ff' has a percent sign that begins no valid escape")]
    fn anything_else_is_refused(#[case] text: &str, #[case] error: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), error);
    }

    fn remarks(text: &str) -> Vec<String> {
        parse(text).unwrap().review().unwrap().into_iter().map(|remark| remark.to_string()).collect()
    }

    #[rstest]
    #[case::known("local?root=/r&store=/s&state=/t&real=/u&read-only=yes")]
    #[case::empty_is_not_set("local?root=&read-only=&unheard-of=")]
    #[case::ssh("ssh://h?store=/nix/store&compress=1&ssh-key=/k&remote-program=p&remote-store=s&port=2999")]
    #[case::base64_empty("ssh://h?base64-ssh-public-host-key=")]
    fn nothing_is_said_of_what_is_honoured(#[case] text: &str) {
        assert!(remarks(text).is_empty());
    }

    #[rstest]
    #[case::local("local?require-sigs=false", false)]
    #[case::build_dir("local?build-dir=/b", false)]
    #[case::roots("local?use-roots-daemon=true", false)]
    #[case::deletion("local?ignore-gc-delete-failure=true", false)]
    #[case::auto("auto?max-connections=3", false)]
    #[case::unix("unix://?max-connection-age=3", false)]
    #[case::ssh("ssh://h?max-connections=1", false)]
    #[case::unknown("ssh://h?foo=bar", true)]
    #[case::no_value("ssh://h?a", true)]
    #[case::of_another_kind("ssh://h?build-dir=/b", true)]
    fn one_thing_is_said_of_what_is_not(#[case] text: &str, #[case] warning: bool) {
        let remarks = parse(text).unwrap().review().unwrap();
        let [remark] = remarks.as_slice() else { panic!("{remarks:?}") };
        assert_eq!(remark.is_warning(), warning, "{remark}");
    }

    #[rstest]
    #[case::switch(
        "local?read-only=maybe",
        "'read-only' of the store is 'maybe', which is not a boolean (true or false)"
    )]
    #[case::number(
        "ssh://h?max-connections=x",
        "'max-connections' of the store is 'x', which is not a number"
    )]
    #[case::path("local?root=x", "'root' of the store is 'x', which is not an absolute path")]
    #[case::port("ssh://h?port=0", "'port' of the store is '0', which is not a port number from 1 to 65535")]
    fn values_have_a_form(#[case] text: &str, #[case] error: &str) {
        assert_eq!(parse(text).unwrap().review().unwrap_err().to_string(), format!("parameter {error}"));
    }

    #[test]
    fn of_repeated_parameters_the_first_counts() {
        assert_eq!(parse("local?root=/a&root=/b").unwrap().parameters.value("root"), Some("/a"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(reference) = parse(&text) {
                let _ = reference.review();
                prop_assert_eq!(&parse(&text).unwrap(), &reference);
            }
        }

        #[test]
        fn texts_like_uris_are_read_or_refused(
            text in "(local|auto|unix|ssh|daemon|file|x)?(:|:/|://|/|\\?)[a-z%0-9/?&=#:.@\\[\\]-]{0,30}",
        ) {
            if let Ok(reference) = parse(&text) {
                let _ = reference.review();
                if let StoreKind::Local { root: Some(root) } = reference.kind {
                    prop_assert!(root.is_absolute());
                }
            }
        }

        #[test]
        fn encoded_parameters_come_back(value in "\\PC{1,20}") {
            let encoded = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
            let reference = parse(&format!("local?x={encoded}")).unwrap();
            prop_assert_eq!(reference.parameters.value("x"), Some(value.as_str()));
        }
    }
}
