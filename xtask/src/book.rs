//! The book in `docs/`, as mdBook makes it: every page is in the table of contents and there, and no link leads nowhere. To make
//! the book itself takes mdBook, which takes minutes to build; what can be wrong with it is seen here in a moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

const FOLDER: &str = "docs";

/// Pages outside the book whose links are looked at too.
const OTHERS: [&str; 4] = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];

/// Fails with every page that is not listed, and every link that leads nowhere.
pub(crate) fn check(workspace: &Path) -> Result<()> {
    let folder = workspace.join(FOLDER);
    let summary = folder.join("SUMMARY.md");
    let listed: BTreeSet<PathBuf> = links(&read(&summary)?).map(|link| folder.join(link)).collect();
    let mut problems = Vec::new();
    let mut pages: Vec<PathBuf> = OTHERS.map(|name| workspace.join(name)).to_vec();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            if path != summary && !listed.contains(&path) {
                problems.push(format!("{} is not in {}", path.display(), summary.display()));
            }
            pages.push(path);
        }
    }
    for page in pages {
        let text = read(&page)?;
        let near = page.parent().unwrap_or(workspace);
        for target in links(&text).chain(inclusions(&text)) {
            if !near.join(target).exists() {
                problems.push(format!("{}: '{target}' leads nowhere", page.display()));
            }
        }
    }
    ensure!(problems.is_empty(), "the book:\n  {}", problems.join("\n  "));
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What the links and pictures of a page lead to, in the same repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next().filter(|file| !file.is_empty()))
}

/// The files that mdBook puts in.
fn inclusions(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split("{{#include ").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
    words.filter_map(|word| word.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_leads_to() {
        let page = "[a](a.md) ![b](b.svg) [c](https://c.example) [d](#here) [e](e.md#there)\n{{#include ../f.rs:9:}}";
        assert_eq!(links(page).collect::<Vec<_>>(), ["a.md", "b.svg", "e.md"]);
        assert_eq!(inclusions(page).collect::<Vec<_>>(), ["../f.rs"]);
    }
}
