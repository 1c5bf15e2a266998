//! Listings as Nix writes them in JSON: `.ls` files of binary caches, and `nix nar ls --json`.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::Error as _,
    ser::{Error as _, SerializeMap},
};

use super::{Builder, Listing, ListingNode, NodeKind};
use crate::{
    decode::Executable,
    name::{EntryName, check_target},
};

/// The one version of the format.
const VERSION: u32 = 1;

/// JSON is nested as the tree is, and so are the functions that write and read it: no deeper than
/// this. Nix itself ends at [`NIX_MAX_DEPTH`](crate::NIX_MAX_DEPTH), and `serde_json` reads 62 unless told
/// otherwise.
const MAX_DEPTH: usize = 256;

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry("root", &self.root())?;
        map.end()
    }
}

impl Serialize for ListingNode<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.kind() {
            NodeKind::Directory => {
                map.serialize_entry("type", "directory")?;
                map.serialize_entry("entries", &Entries(*self))?;
            }
            NodeKind::Regular { executable, size, offset } => {
                map.serialize_entry("type", "regular")?;
                map.serialize_entry("size", size)?;
                if *executable == Executable::Yes {
                    map.serialize_entry("executable", &true)?;
                }
                map.serialize_entry("narOffset", offset)?;
            }
            NodeKind::Symlink { target } => {
                map.serialize_entry("type", "symlink")?;
                map.serialize_entry("target", utf8(target)?)?;
            }
        }
        map.end()
    }
}

struct Entries<'a>(ListingNode<'a>);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.depth() >= MAX_DEPTH {
            return Err(S::Error::custom(format_args!("directories nested deeper than {MAX_DEPTH}")));
        }
        let mut map = serializer.serialize_map(None)?;
        for entry in self.0.entries() {
            map.serialize_entry(utf8(&entry.item().name)?, &entry)?;
        }
        map.end()
    }
}

fn utf8<E: serde::ser::Error>(bytes: &[u8]) -> Result<&str, E> {
    let not_text = |_| {
        let shown = crate::escape::EscapedEnd(bytes);
        E::custom(format_args!("'{shown}' is not UTF-8, which JSON cannot hold"))
    };
    std::str::from_utf8(bytes).map_err(not_text)
}

#[derive(Deserialize)]
struct File {
    version: u32,
    root: Node,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    r#type: String,
    entries: Option<BTreeMap<String, Node>>,
    size: Option<u64>,
    #[serde(default)]
    executable: bool,
    nar_offset: Option<u64>,
    target: Option<String>,
}

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = File::deserialize(deserializer)?;
        if file.version != VERSION {
            return Err(D::Error::custom(format_args!("version {} of the listing is unknown", file.version)));
        }
        let mut builder = Builder::default();
        add(&mut builder, file.root)?;
        Ok(builder.finish())
    }
}

fn add<E: serde::de::Error>(builder: &mut Builder, node: Node) -> Result<(), E> {
    match &*node.r#type {
        "directory" => {
            let entries = node.entries.ok_or_else(|| E::missing_field("entries"))?;
            if builder.open.len() >= MAX_DEPTH {
                return Err(E::custom(format_args!("directories nested deeper than {MAX_DEPTH}")));
            }
            builder.add(NodeKind::Directory);
            // Strings are ordered by their bytes, as names are.
            for (name, node) in entries {
                builder.name = EntryName::new(name).map_err(E::custom)?.as_bytes().into();
                add(builder, node)?;
            }
            builder.end_directory();
        }
        "regular" => builder.add(NodeKind::Regular {
            executable: node.executable.into(),
            size: node.size.ok_or_else(|| E::missing_field("size"))?,
            offset: node.nar_offset.ok_or_else(|| E::missing_field("narOffset"))?,
        }),
        "symlink" => {
            let target = node.target.ok_or_else(|| E::missing_field("target"))?.into_bytes();
            check_target(&target).map_err(E::custom)?;
            builder.add(NodeKind::Symlink { target });
        }
        other => return Err(E::unknown_variant(other, &["directory", "regular", "symlink"])),
    }
    Ok(())
}
