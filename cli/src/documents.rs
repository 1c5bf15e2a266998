//! The version, the manual page and the completions: the latter two from the one definition of the command line.

use std::{
    env,
    fmt::Write as _,
    io::{self, Write as _},
    process::Command,
};

use crate::{
    arguments::{Document, Ssh, shown},
    exit,
    failure::Failure,
    output,
};

/// Prints a document on standard output.
pub(crate) fn print(document: Document) -> Result<(), Failure> {
    let mut text = Vec::new();
    match document {
        Document::Manual => {
            manual(&mut text).map_err(|error| Failure::new("the manual page cannot be made", error))?;
        }
        Document::Completions(shell) => {
            clap_complete::generate(shell, &mut shown(), "nix-copy-closure", &mut text);
        }
        Document::Version { verbose } => text = version(verbose).into_bytes(),
    }
    output::print(&String::from_utf8_lossy(&text))
}

/// The version; `verbose`, also what leads to other machines.
fn version(verbose: bool) -> String {
    let mut text = concat!("nix-copy-closure ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    if verbose {
        for (name, built, is_default, found) in [
            ("openssh", cfg!(feature = "ssh"), Ssh::default() == Ssh::Openssh, openssh as fn() -> String),
            ("libssh2", cfg!(feature = "ssh2"), Ssh::default() == Ssh::Libssh2, || "built in".to_owned()),
        ] {
            let found = if built { found() } else { "not built in".to_owned() };
            let default = if built && is_default { ", the default" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "transport {name}: {found}{default}");
        }
    }
    text
}

/// The ssh that would be started.
fn openssh() -> String {
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(program) = env::split_paths(&path).map(|folder| folder.join("ssh")).find(|file| file.is_file())
    else {
        return "there is no 'ssh' on the PATH".to_owned();
    };
    let said = Command::new(&program).arg("-V").output().map(|output| output.stderr).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    format!("{} ({})", program.display(), ncc_progress::printable(said.trim()))
}

const EXAMPLES: &str = "\
.SH EXAMPLES
Copy Firefox and everything it needs to another machine:
.PP
.nf
nix-copy-closure --to alice@itchy.example.org $(type -tP firefox)
.fi
.PP
Copy Subversion from another machine, and install it:
.PP
.nf
nix-copy-closure --from alice@itchy.example.org /nix/store/0dj0503hjxy5mbwlafv1rsbdiyx1gkdy-subversion-1.4.4
nix-env -i /nix/store/0dj0503hjxy5mbwlafv1rsbdiyx1gkdy-subversion-1.4.4
.fi
.PP
Copy from one machine to another, through this one and past its store:
.PP
.nf
nix-copy-closure --from root@old --to root@new /nix/store/0dj0503hjxy5mbwlafv1rsbdiyx1gkdy-subversion-1.4.4
.fi
.PP
See what would be sent:
.PP
.nf
nix-copy-closure --dry-run --tree root@host ./result
.fi
";

const PARAMETERS: &str = "\
.SH PARAMETERS OF THE HOST
HOST may carry parameters, as store URIs of Nix do:
.IR ssh://[user@]host[:port]?name=value&name=value .
If an option says the same, the option wins; but of two hosts, for which every option counts, each has its own parameters first.
.TP
.B compress
true or false: compress the SSH connection, like \\-\\-gzip
.TP
.B remote\\-store
the store on the host, like \\-\\-remote\\-store
.TP
.B remote\\-program
the program to run on the host, like \\-\\-remote\\-program
.TP
.B ssh\\-key
a file with a private key to log in with
.TP
.B base64\\-ssh\\-public\\-host\\-key
the only host key to accept: a line with its type and key, encoded in base 64
.TP
.B port
the port, unless it stands behind the host
.TP
.B store
the logical store directory of the store on the host
.PP
Other parameters that Nix knows (max\\-connections, priority, trusted, want\\-mass\\-query, ...) have no effect on a copy;
unknown ones cause a warning.
.PP
.I localhost
is reached without ssh, unless \\-\\-transport, ssh\\-key, base64\\-ssh\\-public\\-host\\-key or NIX_SSHOPTS is given.
The scheme
.I ssh\\-ng
means the protocol of nix\\-daemon, which then runs on the host with \\-\\-stdio in place of nix\\-store.
.SH OPTIONS OF NIX
As in all old commands of Nix, every setting in
.BR nix.conf (5)
has an option
.RI ( --NAME ,
.I --no-NAME
or
.IR \"--NAME VALUE\" ),
so that scripts can pass them on.
Those that concern the local store and substituters have their effect; those that would have an effect which this program
does not give are errors; all others have no effect on a copy, and \\-v lists them.
";

const NIX_COPY: &str = "\
.SH AS NIX COPY
Under the name
.I nix
(a link to this program that stands before Nix's own in PATH), or with
.I copy
as its first word, this program is
.BR nix3\\-copy (1):
.PP
.nf
nix copy \\-\\-to ssh://root@host ./result
nix\\-copy\\-closure copy \\-\\-from ssh\\-ng://host \\-\\-no\\-check\\-sigs /nix/store/...
.fi
.PP
It copies store paths, symlinks to them, files inside of them, and known outputs
.RI ( DRV^out ,
.IR DRV^* )
between the stores of this machine and those on hosts
.RI ( ssh:// ,
.IR ssh\\-ng:// ),
from host to host, or between two stores of this machine.
It takes the options of nix copy, before and behind
.IR copy ,
each with Nix's meaning:
\\-\\-from, \\-\\-to, \\-\\-stdin, \\-\\-all, \\-\\-no\\-recursive, \\-\\-derivation, \\-\\-no\\-check\\-sigs, \\-s, \\-\\-profile,
\\-\\-out\\-link, \\-v, \\-\\-quiet, \\-\\-log\\-format, \\-\\-option and all settings.
Those about evaluation, flakes and caches have no effect on store paths.
Unless \\-\\-no\\-check\\-sigs is given, a store of this machine and one behind ssh\\-ng:// accept only paths that are signed or
content\\-addressed, as with Nix.
.PP
Everything else is handed on, unchanged, to Nix's own
.I nix
(see ENVIRONMENT), as if that had been called: other subcommands, flakes and expressions, binary caches
.RI ( file:// ,
.IR s3:// ,
.IR https:// ),
paths that would have to be built or substituted first, help, and all options that are not known.
The exit status of a copy is that of this program (see EXIT STATUS), where Nix has 1 for each error.
";

fn manual(text: &mut Vec<u8>) -> io::Result<()> {
    let command = shown().after_long_help(None::<&str>);
    // No date: the page must come out the same until the program changes.
    let page = clap_mangen::Man::new(command).date("").manual("Copying Nix closures");
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    text.extend_from_slice(PARAMETERS.as_bytes());
    text.extend_from_slice(EXAMPLES.as_bytes());
    text.extend_from_slice(NIX_COPY.as_bytes());
    for line in exit::TABLE.lines() {
        match line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            Some(title) => writeln!(text, ".SH {}\n.nf", title.to_uppercase())?,
            None => writeln!(text, "{}", line.replace('-', "\\-"))?,
        }
    }
    writeln!(text, ".fi")?;
    writeln!(text, ".SH SEE ALSO\n.BR nix\\-store (1),\n.BR nix.conf (5),\n.BR ssh (1)")
}
