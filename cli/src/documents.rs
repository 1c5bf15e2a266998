//! The manual page and the completions, from the one definition of the command line.

use std::io::{self, Write as _};

use crate::{
    arguments::{Document, shown},
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
    }
    output::print(&String::from_utf8_lossy(&text))
        .map_err(|error| Failure::new("standard output cannot be written to", error))
}

const EXAMPLES: &str = "\
.SH EXAMPLES
Copy Firefox and everything it needs to another machine:
.PP
.nf
nix-copy-closure --to alice@itchy.example.org $(type -tP firefox)
.fi
.PP
Copy Subversion from there, and install it:
.PP
.nf
nix-copy-closure --from alice@itchy.example.org /nix/store/0dj0503hjxy5mbwlafv1rsbdiyx1gkdy-subversion-1.4.4
nix-env -i /nix/store/0dj0503hjxy5mbwlafv1rsbdiyx1gkdy-subversion-1.4.4
.fi
.PP
See first what would be sent:
.PP
.nf
nix-copy-closure --dry-run --tree root@host ./result
.fi
";

const PARAMETERS: &str = "\
.SH PARAMETERS OF THE HOST
HOST may carry parameters, as in upstream's
.IR ssh://[user@]host[:port]?name=value&name=value .
Where an option says the same, the option wins.
.TP
.B compress
true or false: compress the SSH connection, as \\-\\-gzip
.TP
.B remote\\-store
the store there, as \\-\\-remote\\-store
.TP
.B remote\\-program
the program there, as \\-\\-remote\\-program
.TP
.B ssh\\-key
a file with a private key
.TP
.B base64\\-ssh\\-public\\-host\\-key
the one key that the host may have: its line (type and key) in base 64
.TP
.B port
the port, where the host does not say it
.TP
.B store
the logical store directory there
.PP
Those of Nix that are about other things (max\\-connections, priority, trusted, want\\-mass\\-query, ...) have no effect,
which \\-v says. Unknown ones are ignored with a warning.
.SH OPTIONS OF NIX
There is an option for each setting of Nix, as with all of its old commands
.RI ( --NAME ,
.I --no-NAME
or
.IR \"--NAME VALUE\" ),
and they win over nix.conf, which is read too. Settings that cannot change what a copy does have no effect, and \\-v names
them. What would have an effect that this program does not give is refused on the command line and warned of elsewhere.
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
    for line in exit::TABLE.lines() {
        match line.strip_suffix(':') {
            Some(title) => writeln!(text, ".SH {}\n.nf", title.to_uppercase())?,
            None => writeln!(text, "{}", line.replace('-', "\\-"))?,
        }
    }
    writeln!(text, ".fi")?;
    writeln!(text, ".SH SEE ALSO\n.BR nix\\-store (1),\n.BR ssh (1)")
}
