//! The manual page and the completions, from the one definition of the command line.

use std::io::{self, Write as _};

use crate::{
    arguments::{Document, definition},
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
            clap_complete::generate(shell, &mut definition(), "nix-copy-closure", &mut text);
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

fn manual(text: &mut Vec<u8>) -> io::Result<()> {
    let command = definition().after_long_help(None::<&str>);
    // No date: the page must come out the same until the program changes.
    let page = clap_mangen::Man::new(command).date("").manual("Copying Nix closures");
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
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
